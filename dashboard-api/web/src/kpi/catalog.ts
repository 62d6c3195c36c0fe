/** The catalog of views, for definitions; fetched when somebody asks, not on the first load. */
import * as v from 'valibot';
import { type ViewInfo, ViewListSchema } from '../wire/schema';

const SQL_TYPES: readonly [RegExp, string][] = [
  [/^Decimal\d+\((\d+), (-?\d+)\)$/, 'DECIMAL($1, $2)'],
  [/^Int64$/, 'BIGINT'],
  [/^Int32$/, 'INT'],
  [/^Float64$/, 'DOUBLE'],
  [/^(Large)?Utf8(View)?$/, 'STRING'],
  [/^Boolean$/, 'BOOLEAN'],
  [/^Date\d+$/, 'DATE'],
  [/^Timestamp\((µs|ns|ms|s|\w+, None)\)$/, 'TIMESTAMP'],
  [/^Timestamp\(.*\)$/, 'TIMESTAMP WITH TIME ZONE'],
];

/** The catalog's Arrow type as the SQL of the views names it; unknown ones stay as they are. */
export function sqlType(arrow: string): string {
  for (const [pattern, sql] of SQL_TYPES) {
    if (pattern.test(arrow)) return arrow.replace(pattern, sql);
  }
  return arrow;
}

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
