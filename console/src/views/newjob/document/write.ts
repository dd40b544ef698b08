/** A spec as YAML that looks as people write it: short lists and mappings on one line. */
import { Document, isCollection, isMap, isScalar, isSeq, visit, type Node } from "yaml";

const LONGEST_LINE = 100;

export function specText(spec: unknown): string {
  const document = new Document(spec);
  visit(document, {
    Collection(_, node, path) {
      const isTopLevel = path.length <= 1;
      const isListOfMappings = isSeq(node) && node.items.some(isMap); // as stages: one a line
      if (!isTopLevel && !isListOfMappings && isShort(node)) node.flow = true;
    },
  });
  return document.toString({ lineWidth: 130, flowCollectionPadding: false });
}

/** Whether a collection holds nothing but scalars and short collections, and fits on a line. */
function isShort(node: Node): boolean {
  if (!isCollection(node)) return isScalar(node);
  const parts = isMap(node) ? node.items.map((pair) => pair.value as Node | null) : (node.items as Node[]);
  return (
    parts.every((part) => part === null || isScalar(part) || isShort(part)) &&
    JSON.stringify(node.toJSON()).length <= LONGEST_LINE
  );
}
