// The origin protocol in Node: what `wsload compare` measures Hotgate against. Clients see the same behaviour as with Hotgate.
//
//     node server.mjs [websocket port, 1234] [text port, 5678]        0 takes a free port

import { createServer } from 'node:net';
import { once } from 'node:events';
import { WebSocket, WebSocketServer } from 'ws';
import { MAX_LINE, MAX_MESSAGE, Watch, leave, pushLines, receive } from '../origin.mjs';

const [websocketPort = 1234, textPort = 5678] = process.argv.slice(2).map(Number);
const watch = new Watch();

class Client extends WebSocket {
  uid = undefined;
  opened = watch.clock;
  heard = watch.clock;

  sendText(message) {
    this.send(message, { binary: false });
  }
}

const websocket = new WebSocketServer({
  host: '127.0.0.1',
  port: websocketPort,
  backlog: 4096,
  perMessageDeflate: false,
  maxPayload: MAX_MESSAGE,
  WebSocket: Client,
});

websocket.on('connection', (client) => {
  client.on('message', (data) => {
    client.heard = watch.clock;
    receive(client, data);
  });
  client.on('ping', () => (client.heard = watch.clock));
  client.on('pong', () => (client.heard = watch.clock));
  client.on('close', () => leave(client));
  client.on('error', () => {}); // it is closed, too
  client.sendText('HeartBeat');
});

watch.start(websocket.clients);

const text = createServer({ noDelay: true }, (sender) => {
  let rest = Buffer.alloc(0);
  sender.on('data', (chunk) => {
    const pushed = pushLines(rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk);
    rest = pushed.rest;
    if (pushed.answers !== '') sender.write(pushed.answers);
    if (rest.length > MAX_LINE) sender.end('fail\n');
  });
  sender.on('error', () => {});
});

text.listen({ port: textPort, host: '127.0.0.1' });
await Promise.all([once(websocket, 'listening'), once(text, 'listening')]);
console.log(`listening ws=${websocket.address().port} text=${text.address().port} pid=${process.pid}`);
