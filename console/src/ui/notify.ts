import { notifications, type NotificationData } from "@mantine/notifications";
import { visible } from "../app/labels";
import { reported } from "../app/Reports";

/** Report an action that has succeeded. */
export function done(message: string): void {
  report({ message: visible(message), color: "green", closeButtonProps: { "aria-label": "Close" } });
}

/** Report an action that has failed, with the server's reason. */
export function failed(action: string, error: unknown): void {
  report({
    title: `${action} failed`,
    message: visible(error instanceof Error ? error.message : String(error)),
    color: "red",
    autoClose: 10_000,
    closeButtonProps: { "aria-label": "Close" },
  });
}

function report(notification: NotificationData): void {
  reported.set(true);
  notifications.show(notification);
}
