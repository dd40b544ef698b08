import { Skeleton, Stack, Text } from "@mantine/core";
import { percent } from "../../../app/format";
import { visible } from "../../../app/labels";
import type { LabelScore } from "../queries";
import classes from "./ScoreBars.module.css";

interface Props {
  label: string;
  scores: LabelScore[] | undefined;
  error: string | undefined;
  /** The image's name, for its error. */
  name: string;
  isStale: boolean;
}

/** The best labels of an image, with their probabilities as bars. */
export function ScoreBars({ label, scores, error, name, isStale }: Props) {
  if (error !== undefined) {
    return (
      <Text size="sm" c="red" role="alert" className="user-text">
        <b>{visible(name, 80)}</b>: {visible(error, 400)}
      </Text>
    );
  }
  if (scores === undefined) return <Skeleton h={60} />;
  return (
    <Stack gap={6} role="list" aria-label={visible(label, 200)} className={classes.scores} data-stale={isStale || undefined}>
      {scores.map(({ label: name, score }, place) => (
        <div key={name} role="listitem" className={classes.row} data-best={place === 0 || undefined}>
          <Text size="sm" className="user-text" lineClamp={2} fw={place === 0 ? 600 : 400} title={visible(name, 300)}>
            {visible(name, 300)}
          </Text>
          <Text size="sm" className={classes.percent}>
            {percent(score)}
          </Text>
          <div className={classes.track} aria-hidden>
            <div className={classes.bar} style={{ width: `${100 * score}%` }} />
          </div>
        </div>
      ))}
    </Stack>
  );
}
