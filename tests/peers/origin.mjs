// The rules of the origin protocol, compiled in, for servers that are compared with Hotgate. Hotgate asks plugins instead.
//
// A client has `uid`, `sendText(message)` and `close(code, reason)`.

export const SILENCE = 30; // seconds after which a client is closed
export const LOGIN = 10; // seconds that a client may take to log in
export const MAX_MESSAGE = 1024 * 1024;
export const MAX_LINE = 2 * 1024 * 1024;

const NEWLINE = 10;
const RETURN = 13;

/** Connections of each uid, the newest last. */
const connections = new Map();

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null;
  }
}

/** A string, or an integer as its digits. Anything else is no uid. */
function asUid(value) {
  if (typeof value === 'string' && value !== '') return value;
  return Number.isSafeInteger(value) ? String(value) : undefined;
}

/** Sends to the newest connection of a uid. Returns whether there is one. */
function deliver(uid, message) {
  const target = connections.get(uid)?.at(-1);
  target?.sendText(message);
  return target !== undefined;
}

function login(client, packet) {
  const uid = asUid(packet?.id);
  if (uid === undefined) return client.close(4400, 'the first packet names no uid');
  client.uid = uid;
  const others = connections.get(uid);
  if (others) others.push(client);
  else connections.set(uid, [client]);
  client.sendText('Link_successful');
}

function relay(client, packet) {
  const uid = asUid(packet?.id);
  const message = packet?.msg;
  if (uid !== undefined && message !== undefined) {
    deliver(uid, typeof message === 'string' ? message : JSON.stringify(message));
  }
  client.sendText('Already_Linked');
}

/** Handles a message of a client. */
export function receive(client, data) {
  const packet = parse(data);
  if (client.uid === undefined) login(client, packet);
  else relay(client, packet);
}

/** Removes a client that has gone. If it was the newest of its uid, the one before takes its place. */
export function leave(client) {
  const same = connections.get(client.uid);
  if (!same) return;
  const newest = same.at(-1) === client;
  same.splice(same.indexOf(client), 1);
  if (same.length === 0) connections.delete(client.uid);
  else if (newest) same.at(-1).sendText('123');
}

/** Pushes a line of the text port. Returns the answer. */
function push(line) {
  const uid = asUid(parse(line)?.uid);
  return uid !== undefined && deliver(uid, line) ? 'ok\n' : 'fail\n';
}

/** Pushes the complete lines in `data`. Returns the answers, and the bytes of the unfinished line. */
export function pushLines(data) {
  let answers = '';
  let from = 0;
  for (let to = data.indexOf(NEWLINE); to >= 0; to = data.indexOf(NEWLINE, from)) {
    const end = data[to - 1] === RETURN && to > from ? to - 1 : to;
    answers += push(data.subarray(from, end));
    from = to + 1;
  }
  return { answers, rest: data.subarray(from) };
}

/** Closes clients that are silent or late. They have `heard` and `opened`, in seconds of this clock. */
export class Watch {
  clock = 0;

  /** Looks at all clients once a second. */
  start(clients) {
    setInterval(() => {
      this.clock += 1;
      for (const client of clients) {
        if (this.clock - client.heard > SILENCE) client.close(4900, 'silent for too long');
        else if (client.uid === undefined && this.clock - client.opened > LOGIN) client.close(4901, 'not authenticated in time');
      }
    }, 1000);
  }
}
