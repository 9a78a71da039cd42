// The origin protocol in Bun, whose WebSocket server is uWebSockets: what `wsload compare` measures Hotgate against.
// Clients see the same behaviour as with Hotgate.
//
//     bun server.mjs [websocket port, 1234] [text port, 5678]        0 takes a free port

import { MAX_LINE, MAX_MESSAGE, Watch, leave, pushLines, receive } from '../origin.mjs';

const [websocketPort = 1234, textPort = 5678] = process.argv.slice(2).map(Number);
const watch = new Watch();
const clients = new Set();

class Client {
  socket = undefined;
  uid = undefined;
  opened = watch.clock;
  heard = watch.clock;

  /** Takes a string, or bytes that are UTF-8. */
  sendText(message) {
    this.socket.sendText(typeof message === 'string' ? message : message.toString());
  }

  close(code, reason) {
    this.socket.close(code, reason);
  }
}

const websocket = Bun.serve({
  hostname: '127.0.0.1',
  port: websocketPort,
  fetch(request, server) {
    if (!server.upgrade(request, { data: new Client() })) return new Response('WebSocket only', { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    maxPayloadLength: MAX_MESSAGE,
    idleTimeout: 0, // `watch` closes silent clients
    sendPings: false,
    open(socket) {
      const client = socket.data;
      client.socket = socket;
      clients.add(client);
      client.sendText('HeartBeat');
    },
    message(socket, data) {
      const client = socket.data;
      client.heard = watch.clock;
      receive(client, data);
    },
    ping(socket) {
      socket.data.heard = watch.clock;
    },
    pong(socket) {
      socket.data.heard = watch.clock;
    },
    close(socket) {
      clients.delete(socket.data);
      leave(socket.data);
    },
  },
});

watch.start(clients);

const NOTHING = Buffer.alloc(0);

/** Writes what the system takes now. The rest waits in `socket.data.answers` until it takes more. */
function write(socket, answers) {
  const waiting = socket.data.answers.length > 0 ? Buffer.concat([socket.data.answers, Buffer.from(answers)]) : Buffer.from(answers);
  socket.data.answers = waiting.subarray(socket.write(waiting));
}

const text = Bun.listen({
  hostname: '127.0.0.1',
  port: textPort,
  socket: {
    open(socket) {
      socket.data = { rest: NOTHING, answers: NOTHING };
    },
    data(socket, chunk) {
      const { rest: before } = socket.data;
      const { answers, rest } = pushLines(before.length > 0 ? Buffer.concat([before, chunk]) : chunk);
      socket.data.rest = rest;
      if (answers !== '') write(socket, answers);
      if (rest.length > MAX_LINE) socket.end('fail\n');
    },
    drain(socket) {
      write(socket, '');
    },
    error() {}, // it is closed, too
  },
});

console.log(`listening ws=${websocket.port} text=${text.port} pid=${process.pid}`);
