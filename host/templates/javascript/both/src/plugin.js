// {{name}}: who is this, and who gets this? A new client is greeted, and the `id` in its first
// packet becomes its uid. After that, a packet {"id":"u2","msg":"hi"} sends `hi` to the client u2;
// a line {"uid":"u1"} of an internal system goes to u1 unchanged.
//
// The gateway calls the functions below, and carries out each result in its order. Each call may
// run in another instance, so keep nothing in a global: keep the data of a client in its session
// (the action `remember`). wit/*.wit explains the interfaces. In JavaScript, their names are in
// camelCase, a record is an object, a variant is { tag, val }, and none is null.

import "./random.js";
import logging from "hotgate:gateway/logging@0.1.0";
import { Unusable, object, text, uid } from "./packet.js";
import { setting } from "./settings.js";

// Sent once a client is authenticated.
const WELCOME = "Link_successful";
// The answer to every later packet.
const RECEIVED = "Already_Linked";
// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED = "123";
// The close code for a first packet that cannot be used. You may give 3000 to 4899 any meaning.
const BAD_REQUEST = 4400;

export const lifecycle = {
  // Called before this plugin goes live. A thrown string refuses it: the old plugin goes on
  // serving.
  check() {
    greeting();
  },
};

export const authenticator = {
  // A connection has opened. `handshake` holds all that is known: address, path, query, and the
  // headers that `websocket.pass_headers` lists. If it holds a token, you can accept or deny here
  // already.
  greet(handshake) {
    // `authenticate` would get the state; none is needed.
    return { tag: "challenge", val: { message: { tag: "text", val: greeting() }, state: [] } };
  },

  // The client has sent its first packet.
  authenticate(handshake, packet, state) {
    try {
      return {
        tag: "accept",
        val: {
          uid: identify(packet),
          reply: { tag: "text", val: WELCOME },
          attributes: [], // for the router below, as { name, value }: roles, a tenant…
          expiresAt: null, // seconds since 1970, when the session ends
        },
      };
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      // Log the decision, never the packet: it may carry a password.
      logging.log("debug", `denied: ${error.message}`);
      return { tag: "deny", val: { code: BAD_REQUEST, reason: error.message } };
    }
  },
};

export const router = {
  // A client has been authenticated. Here you can put it into groups (the action `join`).
  opened(session) {
    return [];
  },

  // A client has sent a packet.
  route(session, packet) {
    const actions = [];
    try {
      actions.push(...deliveries(packet));
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      logging.log("debug", `nothing delivered: ${error.message}`);
    }
    actions.push({ tag: "reply", val: { tag: "text", val: RECEIVED } });
    return actions;
  },

  // A client has gone. Nothing can be sent to its connection any more, only to others.
  closed(session, ending) {
    if (ending.remaining === 0) return [];
    return [deliver(session.uid, { tag: "text", val: OTHER_CLOSED })];
  },

  // An internal system has sent a line to the text port. The answer is `ok` if every delivery
  // reaches somebody, else `fail`. A thrown string is answered `fail`, too, and logged.
  push(sender, line) {
    try {
      // `input` is the line itself: it is passed on without a copy.
      return { commands: [deliver(uid(object(line), "uid"), { tag: "input" })], reply: null };
    } catch (error) {
      throw error instanceof Unusable ? error.message : error;
    }
  },
};

// Optional: decide about messages that internal systems publish by HTTP (`api.rules = "router"` in
// the gateway's settings). Include the world `authentication-routing-and-publishing` in place of
// `{{world}}` in wit/plugin.wit, and remove the slashes below. A case for it:
// { publish = { uid = "u1", message = "hi" }, expect = "pass" }
//
// export const publications = {
//   publish(publisher, to, message) {
//     if (publisher.token === "default") return { tag: "pass" };
//     return { tag: "refuse", val: `the token ${publisher.token} may not publish` };
//   },
// };

// Returns the uid for a first packet. Change this rule for logins.
function identify(packet) {
  return uid(object(text(packet)), "id");
}

// Returns the deliveries that a packet asks for; none without `msg`. Change this rule for messages.
function deliveries(packet) {
  const fields = object(text(packet));
  const id = uid(fields, "id");
  if (!fields.has("msg")) return [];
  const msg = fields.get("msg");
  const message = typeof msg === "string" ? msg : JSON.stringify(msg);
  if (!message.isWellFormed()) throw new Unusable("`msg` is not Unicode text");
  return [deliver(id, { tag: "text", val: message })];
}

// Returns a delivery to a uid. It reaches nobody if the uid is offline.
function deliver(uid, message) {
  return { tag: "deliver", val: { to: { tag: "uid", val: uid }, message, otherwise: null } };
}

// Returns the message to a new client: the setting GREETING.
function greeting() {
  const greeting = setting("GREETING", "HeartBeat");
  if (greeting.length < 1 || greeting.length > 100) throw "GREETING must have 1 to 100 characters";
  return greeting;
}
