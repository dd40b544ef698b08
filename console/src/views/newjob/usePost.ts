/** Submission of a document, once: a second attempt at the same text after a lost answer is answered with the same resource. */
import { useMutation } from "@tanstack/react-query";
import { useRef } from "react";
import { randomKey, send } from "../../api/client";
import { failed } from "../../ui/notify";
import { writeDraft } from "./draft";

/** `source` names the draft, which ends with the submission. */
export function usePost<T>(path: string, source: string, onCreated: (created: T) => void) {
  const sent = useRef({ text: "", key: "" });
  return useMutation({
    mutationFn: async (text: string) => {
      if (sent.current.text !== text) sent.current = { text, key: randomKey() };
      const headers = { "Content-Type": "application/json", "Idempotency-Key": sent.current.key };
      return (await (await send(path, { method: "POST", body: text, headers })).json()) as T;
    },
    onSuccess: (created) => {
      writeDraft(source, null);
      sent.current = { text: "", key: "" };
      onCreated(created);
    },
    onError: (error) => failed("Submission", error),
  });
}
