import { notifications } from "@mantine/notifications";
import { visible } from "../app/labels";

/** Report an action that has succeeded. */
export function done(message: string): void {
  notifications.show({ message: visible(message), color: "green", closeButtonProps: { "aria-label": "Close" } });
}

/** Report an action that has failed, with the server's reason. */
export function failed(action: string, error: unknown): void {
  notifications.show({
    title: `${action} failed`,
    message: visible(error instanceof Error ? error.message : String(error)),
    color: "red",
    autoClose: 10_000,
    closeButtonProps: { "aria-label": "Close" },
  });
}
