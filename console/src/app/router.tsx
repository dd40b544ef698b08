/** All addresses of the console, which hold what the views show. The first view is loaded with the console, each other one when
 * it is opened. */
import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";
import { ErrorState } from "../ui/states";
import JobsPage from "../views/jobs/JobsPage";
import { filterOf, firstPage } from "../views/jobs/list/readPage";
import { NotFound } from "./NotFound";
import { queryClient } from "./queries";
import { list, number, oneOf, optional, parseSearch, stringifySearch, text } from "./search";
import { Shell } from "./Shell";

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  beforeLoad: () => {
    redirect({ to: "/jobs", replace: true, throw: true });
  },
});

export const jobsRoute = createRoute({
  getParentRoute: () => root,
  path: "/jobs",
  validateSearch: (given) => optional({ state: list(given.state), search: text(given.search), label: list(given.label) }),
  // The answer is on its way while the view is drawn for the first time.
  loaderDeps: ({ search }) => search,
  loader: ({ deps }) => void queryClient.prefetchQuery(firstPage(filterOf(deps))),
  component: JobsPage,
});

export const jobRoute = createRoute({
  getParentRoute: () => root,
  path: "/jobs/$jobId",
  validateSearch: (given) =>
    optional({
      tab: text(given.tab),
      series: list(given.series),
      smooth: number(given.smooth),
      scale: oneOf(given.scale, ["log"]),
      search: text(given.search),
      level: list(given.level),
    }),
  component: lazyRouteComponent(() => import("../views/jobs/JobPage")),
});

export const compareJobsRoute = createRoute({
  getParentRoute: () => root,
  path: "/compare-jobs",
  validateSearch: (given) =>
    optional({
      ids: list(given.ids),
      series: text(given.series),
      smooth: number(given.smooth),
      scale: oneOf(given.scale, ["log"]),
    }),
  component: lazyRouteComponent(() => import("../views/jobs/CompareJobsPage")),
});

export const newJobRoute = createRoute({
  getParentRoute: () => root,
  path: "/new-job",
  validateSearch: (given) => optional({ template: text(given.template), from: text(given.from), dataset: text(given.dataset) }),
  component: lazyRouteComponent(() => import("../views/newjob/NewJobPage")),
});

export const searchesRoute = createRoute({
  getParentRoute: () => root,
  path: "/searches",
  validateSearch: (given) => optional({ state: list(given.state) }),
  component: lazyRouteComponent(() => import("../views/searches/SearchesPage")),
});

export const searchRoute = createRoute({
  getParentRoute: () => root,
  path: "/searches/$searchId",
  validateSearch: (given) => optional({ quality: text(given.quality), x: text(given.x) }),
  component: lazyRouteComponent(() => import("../views/searches/SearchPage")),
});

export const newSearchRoute = createRoute({
  getParentRoute: () => root,
  path: "/new-search",
  validateSearch: (given) => optional({ template: text(given.template), from: text(given.from) }),
  component: lazyRouteComponent(() => import("../views/searches/NewSearchPage")),
});

export const modelsRoute = createRoute({
  getParentRoute: () => root,
  path: "/models",
  validateSearch: (given) =>
    optional({
      task: text(given.task),
      metric: text(given.metric),
      x: oneOf(given.x, ["latency", "params", "macs"]),
      search: text(given.search),
    }),
  component: lazyRouteComponent(() => import("../views/models/ModelsPage")),
});

export const modelRoute = createRoute({
  getParentRoute: () => root,
  path: "/models/$name",
  validateSearch: (given) => optional({ version: text(given.version), tab: text(given.tab), deploy: oneOf(given.deploy, ["1"]) }),
  component: lazyRouteComponent(() => import("../views/models/ModelPage")),
});

export const compareModelsRoute = createRoute({
  getParentRoute: () => root,
  path: "/compare-models",
  validateSearch: (given) =>
    optional({ models: list(given.models), task: text(given.task), show: text(given.show), label: text(given.label) }),
  component: lazyRouteComponent(() => import("../views/models/CompareModelsPage")),
});

export const datasetsRoute = createRoute({
  getParentRoute: () => root,
  path: "/datasets",
  component: lazyRouteComponent(() => import("../views/datasets/DatasetsPage")),
});

export const datasetRoute = createRoute({
  getParentRoute: () => root,
  path: "/datasets/$name",
  validateSearch: (given) => optional({ version: text(given.version), tab: text(given.tab), use: text(given.use) }),
  component: lazyRouteComponent(() => import("../views/datasets/DatasetPage")),
});

export const playgroundRoute = createRoute({
  getParentRoute: () => root,
  path: "/playground",
  validateSearch: (given) =>
    optional({
      mode: oneOf(given.mode, ["classify", "search"]),
      deployment: text(given.deployment),
      second: text(given.second),
      index: text(given.index),
      secondIndex: text(given.secondIndex),
      query: text(given.query),
      item: text(given.item),
      filter: text(given.filter),
      compatible: oneOf(given.compatible, ["yes"]),
      labels: text(given.labels),
      labelSet: text(given.labelSet),
      template: text(given.template),
      top: number(given.top),
    }),
  component: lazyRouteComponent(() => import("../views/playground/PlaygroundPage")),
});

export const serviceRoute = createRoute({
  getParentRoute: () => root,
  path: "/service",
  validateSearch: (given) => optional({ tab: text(given.tab) }),
  component: lazyRouteComponent(() => import("../views/service/ServicePage")),
});

export const deploymentRoute = createRoute({
  getParentRoute: () => root,
  path: "/service/deployments/$name",
  component: lazyRouteComponent(() => import("../views/service/DeploymentPage")),
});

export const tokensRoute = createRoute({
  getParentRoute: () => root,
  path: "/tokens",
  component: lazyRouteComponent(() => import("../views/service/TokensPage")),
});

export const router = createRouter({
  routeTree: root.addChildren([
    home,
    jobsRoute,
    jobRoute,
    compareJobsRoute,
    newJobRoute,
    searchesRoute,
    searchRoute,
    newSearchRoute,
    modelsRoute,
    modelRoute,
    compareModelsRoute,
    datasetsRoute,
    datasetRoute,
    playgroundRoute,
    serviceRoute,
    deploymentRoute,
    tokensRoute,
  ]),
  // Lists are repeated parameters (`state=running&state=queued`), as in the API.
  parseSearch,
  stringifySearch,
  defaultPreload: "intent",
  defaultErrorComponent: ({ error, reset }) => <ErrorState error={error} onRetry={reset} />,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
