// {{name}}: who is this? A new client is greeted, and the `id` in its first packet becomes its uid.
//
// Nothing is proved by that: put your own rule into `identify`.
//
// A plugin is asked and answers; the gateway does the rest. Each call may meet a fresh instance, so
// nothing can be kept in a global. The interfaces are explained in wit/*.wit. In JavaScript, their
// names are in camelCase, a record is an object, a variant is { tag, val }, and none is null.

import "./random.js";
import logging from "hotgate:gateway/logging@0.1.0";
import { Unusable, object, text, uid } from "./packet.js";
import { setting } from "./settings.js";

// Sent once a client is authenticated.
const WELCOME = "Link_successful";
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
          attributes: [], // for the router, as { name, value }: roles, a tenant…
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

// The uid that a first packet proves. This is the rule to change.
function identify(packet) {
  return uid(object(text(packet)), "id");
}

// What a new client is sent: the setting GREETING.
function greeting() {
  const greeting = setting("GREETING", "HeartBeat");
  if (greeting.length < 1 || greeting.length > 100) throw "GREETING must have 1 to 100 characters";
  return greeting;
}
