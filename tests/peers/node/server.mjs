// The origin protocol in Node: what `wsload compare` measures Hotgate against.
// Its rules are compiled in, where Hotgate asks plugins; in all that a client sees that behaves it does what Hotgate does.
//
//     node server.mjs [websocket port, 1234] [text port, 5678]        0 takes a free port

import { createServer } from 'node:net';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';

const [websocketPort = 1234, textPort = 5678] = process.argv.slice(2).map(Number);
const SILENCE = 30; // seconds after which a client is closed
const LOGIN = 10; // seconds that a client may take to log in
const MAX_MESSAGE = 1024 * 1024;
const MAX_LINE = 2 * 1024 * 1024;
const NEWLINE = 10;
const RETURN = 13;

/** Connections of each uid, the newest last. */
const connections = new Map();
/** Seconds since the start: all that silence is measured by. */
let clock = 0;

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

/** A string, or an integer as its digits; anything else is no uid. */
function asUid(value) {
  if (typeof value === 'string' && value !== '') return value;
  return Number.isSafeInteger(value) ? String(value) : undefined;
}

/** Sends to the newest connection of a uid; whether there is one. */
function deliver(uid, message) {
  const target = connections.get(uid)?.at(-1);
  target?.send(message, { binary: false });
  return target !== undefined;
}

function login(socket, packet) {
  const uid = asUid(packet?.id);
  if (uid === undefined) return socket.close(4400, 'the first packet names no uid');
  socket.uid = uid;
  const others = connections.get(uid);
  if (others) others.push(socket);
  else connections.set(uid, [socket]);
  socket.send('Link_successful');
}

function relay(socket, packet) {
  const uid = asUid(packet?.id);
  const message = packet?.msg;
  if (uid !== undefined && message !== undefined) {
    deliver(uid, typeof message === 'string' ? message : JSON.stringify(message));
  }
  socket.send('Already_Linked');
}

/** The newest connection of its uid hands over to the one before. */
function leave(socket) {
  const same = connections.get(socket.uid);
  if (!same) return;
  const newest = same.at(-1) === socket;
  same.splice(same.indexOf(socket), 1);
  if (same.length === 0) connections.delete(socket.uid);
  else if (newest) same.at(-1).send('123');
}

const websocket = new WebSocketServer({
  host: '127.0.0.1',
  port: websocketPort,
  backlog: 4096,
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE,
});

websocket.on('connection', (socket) => {
  socket.opened = socket.heard = clock;
  socket.on('message', (data) => {
    socket.heard = clock;
    const packet = parse(data);
    if (socket.uid === undefined) login(socket, packet);
    else relay(socket, packet);
  });
  socket.on('ping', () => (socket.heard = clock));
  socket.on('pong', () => (socket.heard = clock));
  socket.on('close', () => leave(socket));
  socket.on('error', () => {}); // it is closed, too
  socket.send('HeartBeat');
});

setInterval(() => {
  clock += 1;
  for (const socket of websocket.clients) {
    if (clock - socket.heard > SILENCE) socket.close(4900, 'silent for too long');
    else if (socket.uid === undefined && clock - socket.opened > LOGIN) socket.close(4901, 'not authenticated in time');
  }
}, 1000);

/** One line of the text port; the answer to it. */
function push(line) {
  const uid = asUid(parse(line)?.uid);
  return uid !== undefined && deliver(uid, line) ? 'ok\n' : 'fail\n';
}

const text = createServer({ noDelay: true }, (sender) => {
  let rest = Buffer.alloc(0);
  sender.on('data', (chunk) => {
    const data = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    let answers = '';
    let from = 0;
    for (let to = data.indexOf(NEWLINE); to >= 0; to = data.indexOf(NEWLINE, from)) {
      const end = data[to - 1] === RETURN && to > from ? to - 1 : to;
      answers += push(data.subarray(from, end));
      from = to + 1;
    }
    rest = data.subarray(from);
    if (answers !== '') sender.write(answers);
    if (rest.length > MAX_LINE) sender.end('fail\n');
  });
  sender.on('error', () => {});
});

text.listen({ port: textPort, host: '127.0.0.1' });
await Promise.all([once(websocket, 'listening'), once(text, 'listening')]);
console.log(`listening ws=${websocket.address().port} text=${text.address().port} pid=${process.pid}`);
