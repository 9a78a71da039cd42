// {{name}}: who gets this? A packet {"id":"u2","msg":"hi"} sends `hi` to the client u2; a line
// {"uid":"u1"} of an internal system goes to u1 as it came.
//
// A plugin is asked and answers; the gateway does the rest, in the order of the answer. Instances
// serve many users, so what belongs to one of them goes into its session (the action `remember`),
// never into a global. The interfaces are explained in wit/*.wit. In JavaScript, their names are in
// camelCase, a record is an object, a variant is { tag, val }, and none is null.

import "./random.js";
import logging from "hotgate:gateway/logging@0.1.0";
import { Unusable, object, text, uid } from "./packet.js";
import { setting } from "./settings.js";

// Sent to a client when another connection of the same uid has closed.
const OTHER_CLOSED = "123";

export const lifecycle = {
  // Asked before this plugin goes live. A string that is thrown refuses it, and what served before
  // goes on.
  check() {
    reply();
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
      // Log what was decided, never the packet: it is private.
      logging.log("debug", `nothing delivered: ${error.message}`);
    }
    actions.push({ tag: "reply", val: { tag: "text", val: reply() } });
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

// The deliveries that a packet asks for; none without `msg`. This is the rule to change.
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

// What every packet is answered with: the setting REPLY.
function reply() {
  const reply = setting("REPLY", "Already_Linked");
  if (reply.length < 1 || reply.length > 100) throw "REPLY must have 1 to 100 characters";
  return reply;
}
