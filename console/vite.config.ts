import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// The address of a running control plane, for `npm run dev`.
const SERVER = process.env.TINYCLIP_URL ?? "http://127.0.0.1:8321";

/** Redoc shows a picture of another host, which the Content-Security-Policy of the pages does not allow. */
const withoutForeignPicture = {
  name: "without-foreign-picture",
  generateBundle(_: unknown, bundle: Record<string, { type: string; source?: string | Uint8Array }>) {
    for (const [name, file] of Object.entries(bundle)) {
      if (!name.includes("redoc.standalone") || file.source === undefined) continue;
      const text = typeof file.source === "string" ? file.source : new TextDecoder().decode(file.source);
      file.source = text.replaceAll(/https:\/\/cdn\.redoc\.ly\/[\w/.-]+/g, "data:,");
    }
  },
};

export default defineConfig({
  plugins: [react(), withoutForeignPicture],
  build: {
    outDir: "../server/tinyclip_server/console/built",
    emptyOutDir: true,
    target: "es2022",
    license: { fileName: "licenses.md" }, // of what is bundled, and part of the wheel
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // the Content-Security-Policy of the pages allows files of the server only
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      input: ["index.html", "docs.html", "redoc.html"],
      // Few files, since a browser fetches six at once: one has all that the first view needs and nothing else, the other what many
      // views use.
      output: {
        codeSplitting: {
          groups: [
            { name: "first", test: /src\/main\.tsx$/, priority: 2 },
            { name: "shared", test: /node_modules|src\/(ui|app|api)\//, minShareCount: 9 },
          ],
        },
      },
    },
  },
  server: { proxy: { "/v1": SERVER, "/livez": SERVER, "/readyz": SERVER, "/openapi.json": SERVER } },
  // Pure functions need no process each.
  test: { environment: "node", include: ["src/**/*.test.ts"], pool: "threads", isolate: false },
});
