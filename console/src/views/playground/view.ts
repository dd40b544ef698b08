import { useNavigate } from "@tanstack/react-router";
import { useCallback } from "react";
import { playgroundRoute } from "../../app/router";

export type View = (typeof playgroundRoute)["types"]["fullSearchSchema"];
/** A change of the address; what is undefined is left out of it. */
export type SetView = (change: { [Name in keyof View]?: View[Name] | undefined }, options?: { replace?: boolean }) => void;

/** What the address shows, and how to change it. */
export function useView(): [View, SetView] {
  const view = playgroundRoute.useSearch();
  const navigate = useNavigate({ from: playgroundRoute.fullPath });
  const set = useCallback<SetView>(
    (change, { replace = true } = {}) => {
      const next = (before: View) =>
        Object.fromEntries(Object.entries({ ...before, ...change }).filter(([, value]) => value !== undefined)) as View;
      void navigate({ search: next, replace, resetScroll: false });
    },
    [navigate],
  );
  return [view, set];
}
