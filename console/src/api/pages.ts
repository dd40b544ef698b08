/** All pages of a list, for lists that are short in practice. */

interface Paged<T> {
  items: T[];
  next_page_token?: string | null;
}

const MOST_PAGES = 40;

/** `await allPages((page_token) => ask(api.GET("/v1/deployments", {params: {query: {page_token}}})))` */
export async function allPages<T>(read: (token: string | undefined) => Promise<Paged<T>>): Promise<T[]> {
  const items: T[] = [];
  let token: string | undefined;
  for (let page = 0; page < MOST_PAGES; page += 1) {
    const answer = await read(token);
    items.push(...answer.items);
    if (answer.next_page_token == null || answer.next_page_token === "") break;
    token = answer.next_page_token;
  }
  return items;
}
