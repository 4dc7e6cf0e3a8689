import { Picture } from "./Picture.jsx";

export default function Page() {
  return <Picture />;
}
