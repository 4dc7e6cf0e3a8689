import { useEffect, useState } from "react";
import { useMixdq } from "mixdq-web/react";

export function Picture() {
  const { generate, status, progress, stage, image, error } = useMixdq({ model: "models/postcard", enabled: false });
  const [source, setSource] = useState();

  useEffect(() => {
    if (!image) return undefined;
    const url = URL.createObjectURL(image.toBlob());
    setSource(url);
    return () => URL.revokeObjectURL(url);
  }, [image]);

  const draw = (form) => void generate({ prompt: form.get("prompt"), seed: 7 });
  return (
    <>
      <form action={draw}>
        <label>
          Prompt <input name="prompt" defaultValue="a red house by the sea" />
        </label>
        <button>Draw</button>
      </form>
      <output>
        {error ? `${error.code}: ${error.message}` : `${status} ${stage?.type ?? progress?.progress ?? ""}`}
      </output>
      {source && <img alt="" src={source} />}
    </>
  );
}
