/** `/docs`: Swagger UI on the server's own OpenAPI document. */
import bundle from "swagger-ui-dist/swagger-ui-bundle.js?url";
import "swagger-ui-dist/swagger-ui.css";
import { loadScript } from "./loadScript";

declare global {
  var SwaggerUIBundle: (options: Record<string, unknown>) => void;
}

await loadScript(bundle);
globalThis.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#root",
  deepLinking: true,
  docExpansion: "none",
  validatorUrl: null, // no request to another host
});
