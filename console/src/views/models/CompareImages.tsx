/** Classes and images of a task: what the first two models take each image for. */
import { Alert, Group, Select, Stack, Text } from "@mantine/core";
import { ApiError } from "../../api/problems";
import { visible } from "../../app/labels";
import { compareModelsRoute } from "../../app/router";
import { ErrorState, Loading } from "../../ui/states";
import { ClassDifferences, IMAGES } from "./ClassDifferences";
import { CommandLine } from "./CommandLine";
import { PredictedImages } from "./PredictedImages";
import { countedClasses, joinPerClass } from "./perClass";
import { useClassCounts } from "./queries";
import { referenceOf, TEACHER } from "./references";
import { Section } from "./Section";
import { tasksOf, type Compared } from "./tradeoff";

export function CompareImages({ models, found }: { models: string[]; found: Compared[] }) {
  const { task } = compareModelsRoute.useSearch();
  const compared = requested(models, found);
  const known = useClassCounts(compared, task, compared.length > 1);
  if (compared.length < 2) {
    return (
      <Section title="Classes and images">
        <Text size="sm">Add a second version, or the teacher, to compare classes and single images.</Text>
      </Section>
    );
  }
  if (known.isPending) return <Loading />;
  if (known.isError) return <WithoutPredictions error={known.error} models={found} task={task} names={compared} />;
  const { models: names, tasks, task: shown, classes } = known.data;
  return (
    <>
      <Section title="Classes" aside={<Pair models={models} names={names} task={shown} tasks={tasks} />}>
        <ClassDifferences rows={countedClasses(classes)} names={names} />
      </Section>
      <div id={IMAGES}>
        <Section title="Images">
          <PredictedImages models={compared} names={names} task={shown} version={compared[0]!} />
        </Section>
      </div>
    </>
  );
}

/** Return the models of the request: resolved versions, with the teacher of the first one after it if it is the second. */
function requested(models: string[], found: Compared[]): string[] {
  const versions = found.map(referenceOf);
  const withTeacher = models.includes(TEACHER) && (models[1] === TEACHER || versions.length === 1);
  return withTeacher && versions.length > 0 ? [versions[0]!, TEACHER, ...versions.slice(1)].slice(0, 8) : versions.slice(0, 8);
}

/** The task, and which model is compared with the first one. */
function Pair({ models, names, task, tasks }: { models: string[]; names: string[]; task: string; tasks: string[] }) {
  const navigate = compareModelsRoute.useNavigate();
  const versions = models.filter((model) => model !== TEACHER);
  const others = [...versions.slice(1), ...(models.includes(TEACHER) ? [TEACHER] : [])];
  const second = models[1] ?? TEACHER;
  const choose = (other: string) => {
    const next = [versions[0]!, other, ...others.filter((each) => each !== other)];
    void navigate({ search: (before) => ({ ...before, models: next }), replace: true, resetScroll: false });
  };
  return (
    <Group>
      {others.length > 1 && (
        <Select
          label={`Compare ${visible(names[0]!)} with`}
          data={others.map((value) => ({ value, label: value === TEACHER ? "its teacher" : visible(value) }))}
          value={second}
          onChange={(value) => value !== null && choose(value)}
          allowDeselect={false}
        />
      )}
      {tasks.length > 1 && (
        <Select
          label="Task"
          data={tasks}
          value={task}
          onChange={(value) =>
            value !== null &&
            void navigate({
              search: (before) => ({ ...before, task: value, label: undefined }),
              replace: true,
              resetScroll: false,
            })
          }
          allowDeselect={false}
        />
      )}
    </Group>
  );
}

/** Versions from before predictions were kept, or evaluated on other images: what is known, and what to do. */
function WithoutPredictions({
  error,
  models,
  task,
  names,
}: {
  error: unknown;
  models: Compared[];
  task: string | undefined;
  names: string[];
}) {
  const problem = error instanceof ApiError ? error.problem : null;
  const code = problem?.code ?? "";
  if (code !== "no_predictions" && code !== "other_images") return <ErrorState error={error} />;
  const shown = task ?? tasksOf(models).find((each) => models.every((model) => Array.isArray(model.evaluation[each]?.per_class)));
  const [first, second] = models;
  const of = second?.evaluation ?? first?.teacher_evaluation;
  const rows = shown === undefined ? [] : joinPerClass([first?.evaluation[shown], of?.[shown]], []);
  return (
    <>
      {rows.length > 0 && shown !== undefined && (
        <Section title={`Classes of ${visible(shown)}`}>
          <ClassDifferences
            rows={rows}
            names={[names[0]!, second === undefined ? (first?.teacher ?? TEACHER) : referenceOf(second)]}
          />
        </Section>
      )}
      <Section title="Images">
        <Alert
          color="blue"
          variant="light"
          title={code === "other_images" ? "Evaluated on different images" : "No predictions of single images"}
        >
          <Stack gap="xs">
            <Text size="sm" className="user-text">
              {visible(problem?.errors?.[0]?.message ?? problem?.detail ?? "")}
            </Text>
            <Text size="sm">
              Evaluations keep what each image of a zero-shot task was taken for; older ones kept only totals. Evaluate each
              version on the same task:
            </Text>
            {models.map((model) => (
              <CommandLine
                key={referenceOf(model)}
                command={`tinyclip-client models evaluate ${referenceOf(model)} --task task.yaml`}
              />
            ))}
          </Stack>
        </Alert>
      </Section>
    </>
  );
}
