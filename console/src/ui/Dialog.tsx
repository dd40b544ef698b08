/** A dialog: the focus moves into it, stays there, and returns to where it was. */
import { Modal, type ModalProps } from "@mantine/core";

export function Dialog(props: ModalProps) {
  // Mantine's header element would be a second banner of the page for screen readers.
  return <Modal closeButtonProps={{ "aria-label": "Close" }} attributes={{ header: { role: "presentation" } }} {...props} />;
}
