// A server for working on the page without an Andon, and the peer of the connection tests: it speaks the part of the
// Centrifuge protocol that the page uses (snapshot in the subscribe reply, publications, recovery by offset) and
// makes up the figures. `node dev/server.mjs [port]`, then `npm run dev` in another terminal.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { WebSocketServer } from 'ws';

/** Publications kept per channel for recovery. */
const HISTORY_MAX = 100;
const DAY_MS = 86_400_000;

/** One channel: its snapshot, its stream position and the publications that can still be recovered. */
class Channel {
  epoch = randomUUID().slice(0, 8);
  offset = 0;
  history = [];
  subscribers = new Set();

  constructor(snapshot) {
    this.snapshot = snapshot;
  }

  publish(channel, data) {
    this.offset += 1;
    const pub = { data, offset: this.offset };
    this.history = [...this.history.slice(1 - HISTORY_MAX), pub];
    for (const socket of this.subscribers) socket.send(JSON.stringify({ push: { channel, pub } }));
  }

  subscribe(request) {
    const position = { recoverable: true, positioned: true, epoch: this.epoch };
    if (request.recover) {
      // The client leaves a zero out.
      const since = request.offset ?? 0;
      const missed = this.history.filter((pub) => pub.offset > since);
      const whole = request.epoch === this.epoch && missed.length === this.offset - since;
      if (whole) {
        return {
          ...position,
          offset: since,
          recovered: true,
          was_recovering: true,
          publications: missed,
        };
      }
    }
    return {
      ...position,
      offset: this.offset,
      was_recovering: Boolean(request.recover),
      data: this.snapshot(),
    };
  }
}

/**
 * Starts a server on a port (0: any free one). `channels` maps a name to a `Channel`; a null session asks for a token.
 * @param {{port?: number, channels?: Map<string, Channel>, session?: null | {token: string | null, user: string | null, mode: string}, views?: object[]}} options
 */
export async function startDevServer({
  port = 0,
  channels = new Map(),
  session = { token: null, user: null, mode: 'anonymous' },
  views = [],
} = {}) {
  const state = { session, channels, connects: [], refuses: '' };
  const http = createServer((request, response) => {
    const json = (status, body) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    };
    if (request.url === '/api/v1/session') {
      if (state.session === null || (state.refuses && request.headers.authorization === state.refuses))
        json(401, { title: 'token needed' });
      else json(200, state.session);
    } else if (request.url === '/api/v1/views') json(200, { views });
    else json(404, { title: 'not found' });
  });
  const sockets = new WebSocketServer({ server: http, path: '/connection/websocket' });
  sockets.on('connection', (socket) => {
    socket.on('message', (bytes) => {
      for (const line of bytes.toString().split('\n').filter(Boolean))
        answer(state, socket, JSON.parse(line));
    });
    socket.on('close', () => {
      for (const channel of state.channels.values()) channel.subscribers.delete(socket);
    });
  });
  await new Promise((resolve) => http.listen(port, '127.0.0.1', resolve));
  return {
    state,
    port: http.address().port,
    publish: (name, data) => state.channels.get(name).publish(name, data),
    cut: () =>
      sockets.clients.forEach((socket) => {
        socket.terminate();
      }),
    close: async () => {
      sockets.clients.forEach((socket) => {
        socket.terminate();
      });
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
}

function answer(state, socket, command) {
  const reply = (body) => socket.send(JSON.stringify({ id: command.id, ...body }));
  if (command.connect) {
    state.connects.push(command.connect);
    reply({ connect: { client: randomUUID(), version: 'dev', ping: 25, pong: true } });
  } else if (command.subscribe) {
    const channel = state.channels.get(command.subscribe.channel);
    if (!channel) return reply({ error: { code: 102, message: 'unknown channel' } });
    reply({ subscribe: channel.subscribe(command.subscribe) });
    channel.subscribers.add(socket);
  } else if (command.unsubscribe) reply({ unsubscribe: {} });
}

export { Channel };

/** Made-up figures of a small factory, a business minute every half second. */
function factory() {
  const rows = {
    kpi_sales_today: {
      revenue_net: 8120.4,
      units_sold: 512,
      invoices: 41,
      revenue_net_yesterday: '12920.10',
      units_sold_yesterday: '801',
    },
    kpi_order_intake_today: { orders: 37, net: 9400, orders_yesterday: 61, net_yesterday: '15200.00' },
    kpi_open_orders: { orders: 214, total_amount: 104370.77, open_units: 3811, older_than_14_days: 9 },
    kpi_production: { open_orders: 31, late_orders: 4, completion_pct: 63.4 },
    kpi_stock: { quantity: 40712, items_in_stock: 1431, items_out_of_stock: 61 },
    kpi_receivables: { open_amount: 112622.85, overdue_amount: 8252.08, overdue_invoices: 16 },
  };
  const money = (value) => value.toFixed(2);
  const text = (row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        /net|amount|pct|quantity|units/.test(name) && typeof value === 'number' ? money(value) : value,
      ]),
    );
  let asOf = Date.parse('2025-11-28T07:10:00Z');
  const days = new Map();
  for (let back = 40; back >= 0; back -= 1) {
    const at = new Date(asOf - back * DAY_MS);
    if (at.getUTCDay() === 0) continue;
    const units = Math.round(420 + 260 * Math.sin(back) + (40 - back) * 9);
    const day = at.toISOString().slice(0, 10);
    days.set(day, {
      record_date: day,
      invoices: 40 + (back % 9),
      units_sold: money(units),
      revenue_net: money(units * 17.3),
      units_credited: '2.00',
      credited_net: '31.10',
    });
  }
  return { rows, text, days, tick: () => (asOf += 60_000), asOf: () => asOf };
}

const TITLES = [
  ['critical', 'Out of stock: Weihnachtsbaum 1085-AN3, 14 units on open orders', 'warehouse', '1840.00'],
  ['high', 'Production order WA25-00231 is 6 days late (mold F0109)', 'planning', '4210.50'],
  ['warning', 'Customer 769 placed 21 orders within 2 hours', 'sales', null],
  ['high', 'Below threshold: Krippe 1011-GO4, 3 left, 2 days of cover', 'warehouse', '320.00'],
];

/** Runs the made-up factory on a port until stopped. */
async function main(port) {
  const factoryNow = factory();
  const channels = new Map();
  let epoch = 1;
  const view = (name, key, rows) =>
    new Channel(() => {
      const list = rows();
      return {
        view: name,
        key,
        columns: Object.keys(list[0]).map((column) => ({ name: column, type: 'Utf8', nullable: true })),
        rows: list,
        epoch,
        as_of_ms: factoryNow.asOf(),
        empty_inputs: [],
      };
    });
  for (const name of Object.keys(factoryNow.rows))
    channels.set(
      `view:${name}`,
      view(name, [], () => [factoryNow.text(factoryNow.rows[name])]),
    );
  channels.set(
    'view:sales_by_day',
    view('sales_by_day', ['record_date'], () => [...factoryNow.days.values()]),
  );
  const firing = new Map();
  const resolved = [];
  channels.set('alerts', new Channel(() => ({ alerts: [...firing.values(), ...resolved.slice(-50)] })));
  const status = () => ({
    epoch,
    as_of_ms: factoryNow.asOf(),
    written_at_ms: Date.now(),
    event_time_ms: factoryNow.asOf(),
    records_read: epoch * 40,
    lag_records: 0,
    dead_letters: 0,
    phase: 'live',
  });
  channels.set('status', new Channel(status));
  const views = [...channels.keys()]
    .filter((name) => name.startsWith('view:'))
    .map((name) => ({
      name: name.slice(5),
      kind: 'view',
      topic: 'andon.view',
      columns: [],
      key: [],
      description: 'Made up by the development server.',
      sql: `SELECT * FROM ${name.slice(5)}`,
      empty_inputs: [],
      maintenance: 'incremental',
    }));
  const server = await startDevServer({ port, channels, views });
  setInterval(() => server.publish('status', status()), 1_000);
  setInterval(() => {
    epoch += 1;
    factoryNow.tick();
    const change = (name) =>
      server.publish(`view:${name}`, {
        epoch,
        as_of_ms: factoryNow.asOf(),
        changes: [{ key: {}, row: factoryNow.text(factoryNow.rows[name]) }],
      });
    const { rows, days } = factoryNow;
    const units = 1 + (epoch % 7);
    rows.kpi_sales_today.revenue_net += units * 18.35;
    rows.kpi_sales_today.units_sold += units;
    change('kpi_sales_today');
    if (epoch % 3 === 0) {
      rows.kpi_order_intake_today.orders += 1;
      change('kpi_order_intake_today');
      rows.kpi_open_orders.orders += epoch % 2 ? 1 : -2;
      rows.kpi_open_orders.total_amount += epoch % 2 ? 310.2 : -402.9;
      change('kpi_open_orders');
    }
    rows.kpi_stock.quantity -= units;
    change('kpi_stock');
    const [day, today] = [...days.entries()].at(-1);
    days.set(day, { ...today, revenue_net: (Number(today.revenue_net) + units * 18.35).toFixed(2) });
    server.publish('view:sales_by_day', {
      epoch,
      as_of_ms: factoryNow.asOf(),
      changes: [{ key: { record_date: day }, row: days.get(day) }],
    });
  }, 500);
  let nextAlert = 0;
  const alertStep = () => {
    const [severity, title, owner, impact] = TITLES[nextAlert % TITLES.length];
    const time = new Date(factoryNow.asOf()).toISOString();
    const send = (alert) =>
      server.publish('alerts', {
        specversion: '1.0',
        type: `io.andon.alert.${alert.state}`,
        source: '/andon/rules/made_up',
        id: randomUUID(),
        subject: alert.alert_id,
        time,
        data: alert,
      });
    if (firing.size >= 4) {
      const [id, oldest] = firing.entries().next().value;
      firing.delete(id);
      resolved.push({ ...oldest, state: 'resolved', resolved_at: time });
      send(resolved.at(-1));
    }
    const alert = {
      alert_id: randomUUID(),
      rule: 'made_up',
      state: 'firing',
      severity,
      owner,
      title,
      key: { item_id: nextAlert },
      row: { item_id: nextAlert, on_hand: '3.00', due_on: '2025-12-01' },
      impact,
      priority: { critical: 1000, high: 500, warning: 100 }[severity] + nextAlert,
      fired_at: time,
      resolved_at: null,
      epoch,
    };
    nextAlert += 1;
    firing.set(alert.alert_id, alert);
    send(alert);
  };
  alertStep();
  alertStep();
  setInterval(alertStep, 12_000);
  console.log(`development server on http://127.0.0.1:${server.port}`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await main(Number(process.argv[2] ?? 8080));
