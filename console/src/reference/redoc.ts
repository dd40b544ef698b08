/** `/redoc`: Redoc on the server's own OpenAPI document. */
import bundle from "redoc/bundles/redoc.standalone.js?url";
import { loadScript } from "./loadScript";
import "./redoc.css";

declare global {
  var Redoc: { init: (url: string, options: Record<string, unknown>, element: Element | null) => void };
}

await loadScript(bundle);
// Redoc's search runs in a worker from a blob, which the Content-Security-Policy does not allow.
globalThis.Redoc.init("/openapi.json", { disableSearch: true, hideDownloadButtons: true }, document.getElementById("root"));
