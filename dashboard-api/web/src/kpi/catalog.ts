/** The catalog of views, for definitions; fetched when somebody asks, not on the first load. */
import * as v from 'valibot';
import { type ViewInfo, ViewListSchema } from '../wire/schema';

export async function fetchCatalog(
  base: string,
  headers: Record<string, string>,
  signal: AbortSignal,
): Promise<ViewInfo[]> {
  const response = await fetch(`${base}/api/v1/views`, {
    headers: { Accept: 'application/json', ...headers },
    signal,
  });
  if (!response.ok) throw new Error(`views: HTTP ${response.status}`);
  return v.parse(ViewListSchema, await response.json());
}
