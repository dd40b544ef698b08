import { Tabs } from "@mantine/core";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { Page } from "../../ui/Page";
import { ClusterTab } from "./cluster/ClusterTab";
import { DeploymentsTab } from "./deployments/DeploymentsTab";
import { HealthTab } from "./health/HealthTab";
import { IndexesTab } from "./indexes/IndexesTab";

const route = getRouteApi("/service");

const TABS = [
  { value: "deployments", label: "Deployments", content: DeploymentsTab },
  { value: "indexes", label: "Indexes", content: IndexesTab },
  { value: "cluster", label: "Cluster", content: ClusterTab },
  { value: "health", label: "Health", content: HealthTab },
];

export default function ServicePage() {
  const { tab } = route.useSearch();
  const navigate = useNavigate();
  const shown = TABS.find(({ value }) => value === tab) ?? TABS[0]!;
  return (
    <Page title="Service" subtitle="What answers queries, what it runs on, and whether it is healthy.">
      <Tabs
        value={shown.value}
        onChange={(value) => void navigate({ to: "/service", search: { tab: value ?? undefined }, replace: true })}
        keepMounted={false}
      >
        <Tabs.List aria-label="Parts of the service" mb="md">
          {TABS.map(({ value, label }) => (
            <Tabs.Tab key={value} value={value}>
              {label}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value={shown.value}>
          <shown.content />
        </Tabs.Panel>
      </Tabs>
    </Page>
  );
}
