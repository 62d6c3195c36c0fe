import { expect, test } from 'vitest';
import { decimal, formatFor, NO_VALUE, ratioOf } from './format';

const en = formatFor('en');
const de = formatFor('de');
/** Intl uses several kinds of blanks; which one is no matter here. */
const plain = (text: string) => text.replace(/\s/g, ' ');

test('money, counts, quantities and percentages in both languages', () => {
  expect(en.number('18432.50', 'money')).toBe('€18,433');
  expect(plain(de.number('18432.50', 'money'))).toBe('18.433 €');
  expect(plain(de.number('18432.50', 'money_exact'))).toBe('18.432,50 €');
  expect(en.number('1234567.89', 'money')).toMatch(/^€1\.23\s?m$/i);
  expect(en.number(1204, 'count')).toBe('1,204');
  expect(en.number('12.00', 'quantity')).toBe('12');
  expect(de.number('12.250', 'quantity')).toBe('12,25');
  expect(plain(de.number('63.40', 'percent'))).toBe('63,4 %');
  expect(en.ratio(0.624)).toBe('62%');
});

test('no digit of a large exact number is lost', () => {
  expect(en.number('900719925474099312.07', 'money_exact')).toBe('€900,719,925,474,099,312.07');
});

test('what is no number is no value, never NaN or 0', () => {
  for (const cell of [null, undefined, '', 'abc', 'NaN', true, '1e5', Number.NaN]) {
    expect(en.number(cell, 'count')).toBe(NO_VALUE);
  }
  expect(decimal('-0.50')).toBe('-0.50');
});

test('durations show their two largest parts', () => {
  const seconds = (n: number) => plain(en.duration(n * 1_000));
  expect([59, 60, 3_600, 11_520, 90_000].map(seconds)).toEqual([
    '59 secs',
    '1 min',
    '1 hr',
    '3 hrs 12 mins',
    '1 day 1 hr',
  ]);
  expect(seconds(-5)).toBe(seconds(0));
});

test('a plain date stays the same day in every zone', () => {
  expect(en.day('2025-10-14')).toContain('14 Oct 2025');
  expect(de.cell('2025-01-01')).toContain('1. Jan. 2025');
});

test('cells: NULL, booleans, texts and lists', () => {
  expect([en.cell(null), en.cell(true), en.cell('x'), en.cell(['a'])]).toEqual([NO_VALUE, '✓', 'x', '["a"]']);
});

test('a ratio to nothing or to a loss says nothing', () => {
  expect(ratioOf({ a: '50.00', b: '200.00' }, 'a', 'b')).toBe(0.25);
  expect(ratioOf({ a: '50.00', b: '0.00' }, 'a', 'b')).toBeNull();
  expect(ratioOf({ a: '50.00', b: null }, 'a', 'b')).toBeNull();
});
