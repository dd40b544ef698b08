/** The traffic of a deployment, with the answers of the last seconds for rates. */
import { useQuery } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { api, ask } from "../../../api/client";
import { LIVE_MS } from "../../../app/queries";
import { withAnswer, type Traffic } from "./rates";

export function useTraffic(name: string, enabled: boolean) {
  const query = useQuery({
    queryKey: ["deployments", name, "traffic"],
    queryFn: () => ask(api.GET("/v1/deployments/{name}/traffic", { params: { path: { name } } })),
    refetchInterval: LIVE_MS,
    enabled,
  });
  const [answers, setAnswers] = useState<Traffic[]>([]);
  useEffect(() => {
    if (query.data !== undefined) setAnswers((before) => withAnswer(before, query.data));
  }, [query.data]);
  return { query, answers };
}
