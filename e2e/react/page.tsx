/** A page as a React developer writes it, in StrictMode, which mounts everything twice. The test steers it by `window`. */
import { StrictMode, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";
import { type Mixdq, type UseMixdqOptions, useMixdq } from "../../src/react.ts";

export interface Steered {
  /** Mounts the component with these options, or unmounts it. */
  show: (options: UseMixdqOptions | undefined) => void;
  /** What the hook returned in the last render. */
  mixdq: Mixdq;
  mounts: number;
  workers: { made: number; live: number; most: number };
}

const steered = window as unknown as Steered;
const workers = (steered.workers = { made: 0, live: 0, most: 0 });
steered.mounts = 0;

window.Worker = class extends Worker {
  #isLive = true;

  constructor(...args: ConstructorParameters<typeof Worker>) {
    super(...args);
    workers.made++;
    workers.live++;
    workers.most = Math.max(workers.most, workers.live);
  }

  override terminate(): void {
    if (this.#isLive) workers.live--;
    this.#isLive = false;
    super.terminate();
  }
};

function Picture(options: UseMixdqOptions) {
  const mixdq = useMixdq(options);
  const { status, image, error, progress, stage } = mixdq;
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => void steered.mounts++, []);
  useEffect(() => {
    steered.mixdq = mixdq;
  });
  useEffect(() => {
    if (image) canvas.current!.getContext("2d")!.putImageData(image.toImageData(), 0, 0);
  }, [image]);
  return (
    <>
      <output data-status={status} data-stage={stage?.type}>
        {error ? `${error.code}: ${error.message}` : `${status} ${progress?.progress.toFixed() ?? ""}`}
      </output>
      <canvas ref={canvas} width={image?.width} height={image?.height} data-seed={image?.seed} />
    </>
  );
}

function App() {
  const [options, setOptions] = useState<UseMixdqOptions>();
  useEffect(() => {
    steered.show = setOptions;
  }, []);
  return options ? <Picture {...options} /> : <p>nothing</p>;
}

createRoot(document.querySelector("#root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
