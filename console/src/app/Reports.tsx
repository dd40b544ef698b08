/** Where actions report their outcome: its code is loaded with the first report, because the first view has none. */
import { lazy, Suspense } from "react";
import { createStore, useStore } from "./store";

const Notifications = lazy(async () => ({ default: (await import("@mantine/notifications")).Notifications }));

/** True after the first report. */
export const reported = createStore(false);

export function Reports() {
  if (!useStore(reported)) return null;
  return (
    <Suspense>
      <Notifications position="bottom-right" />
    </Suspense>
  );
}
