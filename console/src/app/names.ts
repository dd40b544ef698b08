/** The names that the API takes for data sets, deployments, indexes and models. */
export function isName(given: string): boolean {
  return /^[a-z0-9][a-z0-9._-]{0,62}$/.test(given);
}
