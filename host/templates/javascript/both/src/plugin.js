// {{name}}: who is this, and who gets this? A new client is greeted, and the `id` in its first
// packet becomes its uid. After that, a packet {"id":"u2","msg":"hi"} sends `hi` to the client u2;
// a line {"uid":"u1"} of an internal system goes to u1 as it came.
//
// A plugin is asked and answers; the gateway does the rest, in the order of the answer. Each call
// may meet another instance, so nothing can be kept in a global: what belongs to a client goes into
// its session (the action `remember`). The interfaces are explained in wit/*.wit. In JavaScript,
// their names are in camelCase, a record is an object, a variant is { tag, val }, and none is null.

import "./random.js";
import logging from "hotgate:gateway/logging@0.1.0";
import { Unusable, object, text, uid } from "./packet.js";
import { setting } from "./settings.js";

// Sent once a client is authenticated.
const WELCOME = "Link_successful";
// What every later packet is answered with.
const RECEIVED = "Already_Linked";
// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED = "123";
// The close code for a first packet that cannot be used. 3000 to 4899 are yours to give a meaning.
const BAD_REQUEST = 4400;

export const lifecycle = {
  // Asked before this plugin goes live. A string that is thrown refuses it, and what served before
  // goes on.
  check() {
    greeting();
  },
};

export const authenticator = {
  // A connection has opened. `handshake` is all that is known: address, path, query, and the
  // headers that `websocket.pass_headers` lists. A token in there could be accepted or denied here
  // already.
  greet(handshake) {
    // The state would be handed to `authenticate`; none is needed.
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
          expiresAt: null, // seconds since 1970, when the session shall end
        },
      };
    } catch (error) {
      if (!(error instanceof Unusable)) throw error;
      // Log what was decided, never the packet: it may carry a password.
      logging.log("debug", `denied: ${error.message}`);
      return { tag: "deny", val: { code: BAD_REQUEST, reason: error.message } };
    }
  },
};

export const router = {
  // A client has been authenticated. The place to put it into groups (the action `join`).
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

  // A client has gone. Nothing can be sent to that connection any more, but to others.
  closed(session, ending) {
    if (ending.remaining === 0) return [];
    return [deliver(session.uid, { tag: "text", val: OTHER_CLOSED })];
  },

  // An internal system has sent a line to the text port. It is answered `ok` if all deliveries
  // reach somebody, else `fail`. A string that is thrown is `fail`, too, and goes into the log.
  push(sender, line) {
    try {
      // `input` is the line itself: it is passed on without a copy.
      return { commands: [deliver(uid(object(line), "uid"), { tag: "input" })], reply: null };
    } catch (error) {
      throw error instanceof Unusable ? error.message : error;
    }
  },
};

// The uid that a first packet proves. This is the rule to change for logins.
function identify(packet) {
  return uid(object(text(packet)), "id");
}

// The deliveries that a packet asks for; none without `msg`. This is the rule to change for
// messages.
function deliveries(packet) {
  const fields = object(text(packet));
  const id = uid(fields, "id");
  if (!fields.has("msg")) return [];
  const msg = fields.get("msg");
  const message = typeof msg === "string" ? msg : JSON.stringify(msg);
  if (!message.isWellFormed()) throw new Unusable("`msg` is not Unicode text");
  return [deliver(id, { tag: "text", val: message })];
}

// A message to a uid, and to nobody if that is offline.
function deliver(uid, message) {
  return { tag: "deliver", val: { to: { tag: "uid", val: uid }, message, otherwise: null } };
}

// What a new client is sent: the setting GREETING.
function greeting() {
  const greeting = setting("GREETING", "HeartBeat");
  if (greeting.length < 1 || greeting.length > 100) throw "GREETING must have 1 to 100 characters";
  return greeting;
}
