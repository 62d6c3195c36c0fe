/** English texts; the type of every other language. */
const plural = (n: number, one: string, other: string) => (n === 1 ? one : other);

export const en = {
  product: 'Andon',
  boardTitle: 'Company board',
  skipToAlerts: 'Skip to alerts',
  tabTitle: (firing: number) => (firing > 0 ? `(${firing}) Andon` : 'Andon'),

  pill: {
    connecting: 'Connecting…',
    live: 'Live',
    paused: 'Paused',
    refused: 'Signed out',
    catchingUp: (left: string | null) => (left ? `Catching up · ${left} left` : 'Catching up'),
    silent: (age: string) => `Engine silent for ${age}`,
    reconnecting: (seconds: number | null) =>
      seconds === null
        ? 'Reconnecting…'
        : seconds === 0
          ? 'Reconnecting now…'
          : `Reconnecting in ${seconds} s`,
    offline: (since: string) => `Offline since ${since}`,
  },
  offlineBanner: (since: string, age: string) =>
    `No connection since ${since}. The values below are the last ones received, ${age} old.`,
  offlineEmptyBanner: (since: string) => `No connection since ${since}. No data has been received yet.`,
  nextAttempt: (seconds: number) => (seconds === 0 ? 'Trying now…' : `Next attempt in ${seconds} s.`),
  noNetwork: 'This device has no network.',
  silentBanner: (age: string) =>
    `The engine has not reported for ${age}. The values below may be out of date.`,
  pausedBanner: (waiting: string) => `Updates are paused. ${waiting} waiting.`,
  changesWaiting: (n: string, count: number) => `${n} ${plural(count, 'change', 'changes')}`,
  retry: 'Try now',

  asOf: 'As of',
  updatedAgo: (age: string) => `updated ${age} ago`,
  updatedNow: 'updated just now',
  noDataYet: 'no data yet',
  dataTimeHint: 'Business time of the data, from the documents in the ERP',

  pause: 'Pause',
  resume: 'Resume',
  theme: 'Appearance',
  themes: { system: 'System', light: 'Light', dark: 'Dark', contrast: 'High contrast' },
  language: 'Language',
  languages: { en: 'English', de: 'Deutsch' },

  kpis: 'Key figures',
  kpi: {
    revenueToday: 'Revenue today',
    unitsToday: 'Units sold today',
    ordersToday: 'Orders taken today',
    openOrders: 'Open orders',
    openOrderValue: 'Open order value',
    lateProduction: 'Late production',
    completion: 'Production done',
    stock: 'Stock on hand',
    outOfStock: 'Items out of stock',
    overdue: 'Overdue receivables',
  },
  unit: { net: 'net', units: 'units' },
  ofYesterday: (ratio: string, yesterday: string) => `${ratio} of yesterday’s ${yesterday}`,
  yesterday: (value: string) => `yesterday ${value}`,
  invoices: (n: string, count: number) => `${n} ${plural(count, 'invoice', 'invoices')}`,
  worth: (value: string) => `worth ${value}`,
  olderThan14: (n: string) => `${n} older than 14 days`,
  unitsOpen: (n: string) => `${n} units still to deliver`,
  ofOpen: (n: string) => `of ${n} open orders`,
  inOpenProduction: (n: string) => `over ${n} open orders`,
  itemsInStock: (n: string) => `${n} items in stock`,
  invoicesOverdue: (n: string, count: number) => `${n} ${plural(count, 'invoice', 'invoices')} overdue`,
  ofReceivables: (value: string) => `of ${value} open`,
  higher: 'rising',
  lower: 'falling',
  loading: 'Loading…',
  noValue: 'No value',
  emptyKpi: 'No row yet',
  unknownView: 'This figure is not offered by the server (yet)',
  forbiddenView: 'You may not see this figure',
  unreadableView: 'The server sent something unreadable',
  notInErp: (relations: string) => `Not recorded in this ERP: ${relations}`,
  badge: { ageing: 'ageing', stale: 'stale', paused: 'paused' },
  sparkline: (n: string) => `Course of the last ${n} values`,

  why: 'Why this number?',
  whyOf: (kpi: string) => `Why this number? ${kpi}`,
  whyView: 'View',
  whyColumns: 'Columns',
  whySql: 'Definition',
  whyMaintenance: 'Kept',
  whyIncremental: 'incrementally, with every change',
  whyRecompute: (reason: string) => `by recomputation (${reason})`,
  whyEpoch: 'Last change',
  whyEpochValue: (epoch: string, time: string) => `epoch ${epoch}, ${time}`,
  whyFailed: 'The definition could not be loaded.',
  usedColumn: 'shown on the tile',
  close: 'Close',

  chartTitle: 'Revenue and units per day',
  chartRange: (from: string, to: string) => `${from} to ${to}`,
  revenue: 'Revenue (net)',
  units: 'Units',
  showChart: 'Chart',
  showTable: 'Table',
  chartOrTable: 'Chart or table',
  chartEmpty: 'No sales yet.',
  chartSummary: (p: {
    days: number;
    from: string;
    to: string;
    total: string;
    best: string;
    bestDay: string;
    last: string;
    lastDay: string;
  }) =>
    `Bar chart of net revenue over ${p.days} days, ${p.from} to ${p.to}: ${p.total} in total, best day ${p.bestDay} with ${p.best}, latest day ${p.lastDay} with ${p.last}. A line shows units sold. The table holds every value.`,
  noSales: 'no sales',
  column: { day: 'Day', invoices: 'Invoices', credited: 'Credited' },
  total: 'Total',

  alerts: 'Alerts',
  severity: { critical: 'Critical', high: 'High', warning: 'Warning', info: 'Info' },
  lamps: 'Firing alerts',
  lamp: (n: string, severity: string) => `${n} ${severity}`,
  since: (age: string) => `for ${age}`,
  resolvedAfter: (age: string) => `resolved after ${age}`,
  impact: 'Impact',
  owner: 'Owner',
  rule: 'Rule',
  firedAt: 'Firing since',
  resolvedAt: 'Resolved',
  priority: 'Priority',
  values: 'Values',
  details: 'Details',
  firingCount: (n: number) => (n === 0 ? 'Nothing firing' : `${n} firing`),
  allQuiet: 'All quiet',
  allQuietText: 'No rule fires right now. New alerts appear here by themselves.',
  resolved: (n: string) => `Resolved (${n})`,
  showAll: (n: string) => `Show all ${n}`,
  showFewer: 'Show fewer',
  announceOne: (severity: string, title: string) => `New alert, ${severity}: ${title}`,
  announceMany: (n: number, title: string) => `${n} new alerts. First: ${title}`,
  announceOffline: 'Connection lost. Showing the last values.',
  announceOnline: 'Connection is back.',

  signIn: 'Sign in',
  signInText:
    'This board wants to know who you are: your name and password, or an access token from your administrator.',
  signInRejected: 'The server did not accept this. The token may have expired, or the password be wrong.',
  user: 'Name',
  password: 'Password',
  token: 'Access token',
};
