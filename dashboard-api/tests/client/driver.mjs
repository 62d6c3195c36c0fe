// Runs the official Centrifuge client at the command of a test: one JSON command a line on stdin, one JSON event a
// line on stdout. The test decides what happens when; this only carries it out and reports.
//
// Commands: {"op":"open","url","token"?,"ask"?,"transport"?,"emulation"?}        ask: fetch tokens through the test, by {"op":"token","token"}
//           {"op":"subscribe","channel"}  {"op":"unsubscribe","channel"}
//           {"op":"call","method","arguments"}         a method of the client, for example history
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';
import EventSource from 'eventsource';
import WebSocket from 'ws';

const tell = (event, about = {}) => process.stdout.write(`${JSON.stringify({ event, ...about })}\n`);

let client;
let answerToken;

function open({ url, token, ask, transport, emulation }) {
  const getToken = ask
    ? () => new Promise((resolve) => {
        answerToken = resolve;
        tell('token wanted');
      })
    : undefined;
  const endpoint = transport ? [{ transport, endpoint: url }] : url;
  client = new Centrifuge(endpoint, {
    websocket: WebSocket,
    eventsource: EventSource,
    ...(emulation ? { emulationEndpoint: emulation } : {}),
    ...(token ? { token } : {}),
    ...(getToken ? { getToken } : {}),
    minReconnectDelay: 20,
    maxReconnectDelay: 100,
  });
  client.on('connected', () => tell('connected'));
  client.on('connecting', ({ code }) => code !== 0 && tell('connecting', { code }));
  client.on('disconnected', ({ code, reason }) => tell('disconnected', { code, reason }));
  client.connect();
}

function subscribe({ channel, options }) {
  const subscription = client.newSubscription(channel, {
    minResubscribeDelay: 20,
    maxResubscribeDelay: 100,
    ...options,
  });
  subscription.on('subscribed', ({ recovered, wasRecovering, data }) =>
    tell('subscribed', { channel, recovered, wasRecovering, data }));
  subscription.on('publication', ({ data, offset }) => tell('publication', { channel, offset, data }));
  subscription.on('unsubscribed', ({ code, reason }) => tell('unsubscribed', { channel, code, reason }));
  subscription.on('join', ({ info }) => tell('join', { channel, info }));
  subscription.on('leave', ({ info }) => tell('leave', { channel, info }));
  subscription.subscribe();
}

async function call({ method, arguments: args }) {
  try {
    tell('result', { method, result: await client[method](...args) });
  } catch (error) {
    tell('failed', { method, code: error.code, message: error.message });
  }
}

const operations = {
  open,
  subscribe,
  unsubscribe: ({ channel }) => client.getSubscription(channel).unsubscribe(),
  call,
  token: ({ token }) => answerToken(token),
};

const lines = createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const command = JSON.parse(line);
  operations[command.op](command);
});
lines.on('close', () => process.exit(0));
