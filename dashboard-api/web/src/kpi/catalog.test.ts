import { expect, test } from 'vitest';
import { sqlType } from './catalog';

test.each([
  ['Decimal128(38, 2)', 'DECIMAL(38, 2)'],
  ['Int64', 'BIGINT'],
  ['Utf8View', 'STRING'],
  ['Date32', 'DATE'],
  ['Timestamp(µs)', 'TIMESTAMP'],
  ['Timestamp(Microsecond, None)', 'TIMESTAMP'],
  ['Timestamp(µs, "UTC")', 'TIMESTAMP WITH TIME ZONE'],
  ['List(Int64)', 'List(Int64)'],
])('%s is %s', (arrow, sql) => {
  expect(sqlType(arrow)).toBe(sql);
});
