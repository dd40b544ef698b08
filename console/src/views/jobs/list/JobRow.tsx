import { Link } from "@tanstack/react-router";
import { memo, type CSSProperties } from "react";
import { ago, compact, dateTime, duration, integer } from "../../../app/format";
import { visible } from "../../../app/labels";
import { stateColor } from "../../../app/theme";
import { StateBadge } from "../../../ui/states";
import { hasEnded } from "../jobState";
import classes from "./JobTable.module.css";
import type { ListedJob } from "./mergeJobs";

interface Props {
  job: ListedJob;
  row: number;
  isSelected: boolean;
  onSelect: (id: string, isSelected: boolean) => void;
}

export const JobRow = memo(function JobRow({ job, row, isSelected, onSelect }: Props) {
  const name = visible(job.name, 200);
  return (
    <tr className={classes.row} aria-rowindex={row + 2} data-selected={isSelected || undefined}>
      <td>
        <input
          type="checkbox"
          className={classes.check}
          aria-label={`Select ${name}`}
          checked={isSelected}
          onChange={(event) => onSelect(job.id, event.currentTarget.checked)}
        />
      </td>
      <th scope="row">
        <Link to="/jobs/$jobId" params={{ jobId: job.id }} className={`user-text ${classes.name}`}>
          {name}
        </Link>
        <SecondLine job={job} />
      </th>
      <td>
        <StateBadge state={job.state} />
      </td>
      <td>
        <JobProgress job={job} />
      </td>
      <td className={`mantine-visible-from-md ${classes.line}`}>{hasEnded(job) ? "" : duration(job.progress.eta_seconds)}</td>
      <td className={`mantine-visible-from-lg ${classes.line}`}>
        {job.progress.pairs_per_second == null ? "" : compact(job.progress.pairs_per_second)}
      </td>
      <td className="mantine-visible-from-md">
        {job.model !== null && (
          <Link
            to="/models/$name"
            params={{ name: job.model.name }}
            search={{ version: String(job.model.version) }}
            className={`user-text ${classes.link}`}
          >
            {visible(job.model.name)}@{job.model.version}
          </Link>
        )}
      </td>
      <td className={`mantine-visible-from-sm ${classes.line}`} title={dateTime(job.created_at)}>
        {ago(job.created_at)}
      </td>
    </tr>
  );
});

/** The error of a failed job; otherwise what it waits for, or its labels. */
function SecondLine({ job }: { job: ListedJob }) {
  const labels = Object.entries(job.labels).map(([key, value]) => `${key}: ${value}`);
  const text = job.error ?? job.progress.waiting ?? (labels.join(", ") || job.id);
  return (
    <div className={`user-text ${classes.second}`} data-error={job.error !== null || undefined} title={visible(text, 500)}>
      {visible(text, 300)}
    </div>
  );
}

function JobProgress({ job }: { job: ListedJob }) {
  const { fraction, step, steps, stage, stages } = job.progress;
  const percent = Math.round(100 * fraction);
  const color = { "--bar-color": `var(--mantine-color-${stateColor(job.state)}-filled)` } as CSSProperties;
  return (
    <>
      <div
        className={classes.bar}
        role="progressbar"
        aria-valuenow={percent}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-label={`${percent} % of ${visible(job.name, 60)}`}
        style={color}
      >
        <div style={{ width: `${percent}%` }} />
      </div>
      <div className={classes.steps}>
        <span>
          {integer(step)}/{integer(steps)}
        </span>
        {stages > 1 && (
          <span className={`mantine-visible-from-xs ${classes.stage}`}>
            stage {Math.min(stage + 1, stages)} of {stages}
          </span>
        )}
      </div>
    </>
  );
}
