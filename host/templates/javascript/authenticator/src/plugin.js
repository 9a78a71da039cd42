// {{name}}: who is this? A new client is greeted, and the `id` in its first packet becomes its uid.
//
// This proves nothing: put your own rule into `identify`.
//
// The gateway calls the functions below, and carries out the results. Each call may run in a fresh
// instance, so keep nothing in a global. wit/*.wit explains the interfaces. In JavaScript, their
// names are in camelCase, a record is an object, a variant is { tag, val }, and none is null.

import "./random.js";
import logging from "hotgate:gateway/logging@0.1.0";
import { Unusable, object, text, uid } from "./packet.js";
import { setting } from "./settings.js";

// Sent once a client is authenticated.
const WELCOME = "Link_successful";
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
          attributes: [], // for the router, as { name, value }: roles, a tenant…
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

// Returns the uid for a first packet. Change this rule.
function identify(packet) {
  return uid(object(text(packet)), "id");
}

// Returns the message to a new client: the setting GREETING.
function greeting() {
  const greeting = setting("GREETING", "HeartBeat");
  if (greeting.length < 1 || greeting.length > 100) throw "GREETING must have 1 to 100 characters";
  return greeting;
}
