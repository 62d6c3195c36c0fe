/** The board of a running demo, as a person sees it in a real browser. */
import AxeBuilder from '@axe-core/playwright';
import { expect, type Page, test } from '@playwright/test';

/** The demo replays days in seconds, so something moves well within this. */
const MOVES_WITHIN_MS = 60_000;
const TILES = 10;

const pill = (page: Page) => page.getByTestId('connection');
const values = (page: Page) => page.getByTestId('value').allTextContents();

/** Opens the page and waits until it is connected and every tile has a number. */
async function openBoard(page: Page): Promise<void> {
  await page.goto('/');
  await expect(page.getByTestId('value')).toHaveCount(TILES, { timeout: MOVES_WITHIN_MS });
  await expect(pill(page)).toHaveAttribute('data-state', /live|catching_up/);
}

/** No violation of WCAG 2.2 A and AA that axe can find in the present state of the page. */
async function expectAccessible(page: Page): Promise<void> {
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
  const { violations } = await new AxeBuilder({ page }).withTags(tags).analyze();
  const found = violations.map(
    ({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map((node) => node.html).join(' | ')}`,
  );
  expect(found).toEqual([]);
}

/** Complaints of the page: errors, and what its content security policy refused. */
function complaints(page: Page): string[] {
  const heard: string[] = [];
  page.on('pageerror', (error) => heard.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') heard.push(message.text());
  });
  return heard;
}

test('tiles and chart show figures, and a tile changes by itself', async ({ page }) => {
  const heard = complaints(page);
  await openBoard(page);
  await expect(page.getByTestId('chart').locator('canvas')).toBeVisible();
  await expect(page.getByTestId('as-of')).toContainText('2025');
  const before = await values(page);
  await expect.poll(() => values(page), { timeout: MOVES_WITHIN_MS }).not.toEqual(before);
  expect(heard).toEqual([]);
});

test('an alert arrives on the open page', async ({ page }) => {
  await openBoard(page);
  const list = page.getByRole('region', { name: 'Alerts' });
  await expect(list).not.toContainText('Loading');
  // Watches the list itself, since an alert may be gone again after a moment of the demo's fast time.
  const arrived = page.evaluate(
    () =>
      new Promise<string>((resolve) => {
        const known = new Set(
          [...document.querySelectorAll('[data-testid=alert-firing]')].map((item) =>
            item.getAttribute('data-alert'),
          ),
        );
        new MutationObserver(() => {
          for (const item of document.querySelectorAll('[data-testid=alert-firing]')) {
            if (!known.has(item.getAttribute('data-alert'))) resolve(item.textContent ?? '');
          }
        }).observe(document.body, { childList: true, subtree: true });
      }),
  );
  expect(await arrived).not.toBe('');
  await expect(page.getByTestId('announcer')).not.toBeEmpty({ timeout: 10_000 });
});

test('offline: the page says so, keeps its last values with their age, and comes back', async ({
  page,
  context,
}) => {
  await openBoard(page);
  await context.setOffline(true);
  await expect(pill(page)).toHaveAttribute('data-state', 'offline', { timeout: 45_000 });
  await expect(pill(page)).toContainText('Offline since');
  await expect(page.getByTestId('banner')).toContainText('last ones received');
  await expect(page.getByTestId('value')).toHaveCount(TILES);
  const frozen = await values(page);
  await expect(page.getByTestId('stale-badge').first()).toBeVisible({ timeout: 30_000 });
  expect(await values(page)).toEqual(frozen);
  await expectAccessible(page);
  await context.setOffline(false);
  await expect(pill(page)).toHaveAttribute('data-state', /live|catching_up/, { timeout: 30_000 });
  await expect.poll(() => values(page), { timeout: MOVES_WITHIN_MS }).not.toEqual(frozen);
});

test('pause holds the figures still', async ({ page }) => {
  await openBoard(page);
  await page.getByRole('button', { name: 'Pause' }).click();
  const held = await values(page);
  await expect(page.getByTestId('banner')).toContainText(/[1-9][\d,]* changes? waiting/, {
    timeout: MOVES_WITHIN_MS,
  });
  expect(await values(page)).toEqual(held);
  await page.getByRole('button', { name: 'Resume' }).click();
  await expect.poll(() => values(page), { timeout: MOVES_WITHIN_MS }).not.toEqual(held);
});

test('why this number: the definition of a tile', async ({ page }) => {
  await openBoard(page);
  await page.getByRole('button', { name: 'Why this number? Revenue today' }).click();
  const dialog = page.getByRole('dialog');
  await expect(dialog).toContainText('kpi_sales_today');
  await expect(dialog.locator('pre')).toContainText(/select/i);
  expect(await dialog.evaluate((box) => box.scrollWidth - box.clientWidth)).toBeLessThanOrEqual(0);
  await expectAccessible(page);
  await page.keyboard.press('Escape');
  await expect(dialog).toHaveCount(0);
});

test('the table holds what the chart draws', async ({ page }) => {
  await openBoard(page);
  await page.getByRole('button', { name: 'Table' }).click();
  await expect(page.getByRole('row')).not.toHaveCount(0);
  await expect(page.getByRole('columnheader', { name: 'Revenue (net)' })).toBeVisible();
  await expectAccessible(page);
});

for (const [name, size, colorScheme] of [
  ['desk, light', { width: 1440, height: 900 }, 'light'],
  ['desk, dark', { width: 1440, height: 900 }, 'dark'],
  ['phone, light', { width: 390, height: 844 }, 'light'],
  ['phone, dark', { width: 390, height: 844 }, 'dark'],
] as const) {
  test(`accessibility and fit: ${name}`, async ({ page }) => {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await openBoard(page);
    await expectAccessible(page);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    expect(overflow).toBeLessThanOrEqual(0);
    const cut = await page.$$eval('[data-testid=value]', (all) =>
      all.filter((each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.textContent),
    );
    expect(cut).toEqual([]);
  });
}
