/** Curves over steps: zoom by dragging, a double click shows all again. The code that draws is loaded with the first chart. */
import { ActionIcon, Box, Group, Tooltip } from "@mantine/core";
import { IconTable } from "@tabler/icons-react";
import { lazy, Suspense, useState, type ReactNode } from "react";
import { significant } from "../../app/format";
import type { Curve } from "./align";
import { ChartTable } from "./ChartTable";
import { summary } from "./summary";

export { summary } from "./summary";

const Plot = lazy(() => import("./Plot"));

export interface Mark {
  x: number;
  label: string;
}

export interface ChartProps {
  /** What the curves show, for screen readers too. */
  title: string;
  curves: Curve[];
  height?: number;
  xLabel?: string;
  logarithmic?: boolean;
  /** Format of the values; three significant digits by default. */
  format?: (value: number) => string;
  /** Charts of one group show the cursor at the same step. */
  group?: string;
  /** Vertical lines, such as the ends of stages. */
  marks?: Mark[];
  /** What stands above the curves. */
  heading?: ReactNode;
}

const NO_MARKS: Mark[] = [];

export function Chart({
  title,
  curves,
  height = 220,
  xLabel = "step",
  logarithmic = false,
  format = significant,
  group,
  marks = NO_MARKS,
  heading,
}: ChartProps) {
  const [asTable, setAsTable] = useState(false);
  const label = asTable ? `Show ${title} as curves` : `Show ${title} as a table`;
  return (
    <Box miw={0}>
      <Group justify="space-between" align="flex-start" wrap="nowrap" gap="xs" mb={4}>
        {heading ?? <span />}
        <Tooltip label={asTable ? "Show as curves" : "Show as a table"}>
          <ActionIcon variant="subtle" color="gray" size="sm" aria-label={label} onClick={() => setAsTable(!asTable)}>
            <IconTable size={16} />
          </ActionIcon>
        </Tooltip>
      </Group>
      {asTable ? (
        <ChartTable title={title} curves={curves} xLabel={xLabel} format={format} height={height} />
      ) : (
        <Box role="img" aria-label={summary(title, curves, format)} mih={height}>
          <Suspense>
            <Plot {...{ title, curves, height, xLabel, logarithmic, format, group, marks }} />
          </Suspense>
        </Box>
      )}
    </Box>
  );
}
