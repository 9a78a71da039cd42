// What the gateway answers, as far as the page reads it. OPERATING.md explains it.

/** Who has logged in to the page. */
export interface Session {
  token: string;
  readOnly: boolean;
}

/** `GET /status` */
export interface Status {
  version: string;
  commit: string;
  state: "serving" | "draining";
  started: string;
  uptime_seconds: number;
  listeners: { listener: string; address: string; tls: boolean }[];
  certificates: { listener: string; file: string; names: string[]; expires: string }[];
  connections: { open: number; limit: number; unauthenticated: number; unauthenticated_limit: number };
  per_second: Record<string, number>;
  plugins: Slot[];
  budgets: { setting: string; used_bytes: number; limit_bytes: number }[];
  cluster?: { node: number; nats: string; others: { node: number; state: string }[] };
  warnings: string[];
}

export type Stage = "shadow" | "canary" | "probation" | "live" | "kept";

/** The answer to `PUT /plugins/SLOT`. */
export interface Deployed extends Slot {
  /** All slots that serve the file. */
  slots?: string[];
  /** Where the symbolic link led that the file has replaced. */
  replaced_link?: string;
}

/** A slot of `GET /plugins`. */
export interface Slot {
  slot: string;
  plugin: string;
  source: string;
  live: Generation;
  candidate: Generation | null;
  previous: Generation | null;
  refused: { what: string; digest: string | null; reason: string }[];
  history: SlotEvent[];
  swaps: number;
  rollbacks: number;
  refusals: number;
  alerts: number;
  overloaded: number;
  instances: number;
  memory_bytes: number;
  unsaved: string | null;
}

export interface Generation {
  generation: number;
  digest: string;
  stage: Stage;
  since: string;
  calls: number;
  failures: Record<string, number>;
  functions: FunctionCalls[];
  last_error: { at: string; function: string; kind: string; reason: string } | null;
  load_ms: number;
  compile_ms: number | null;
  code_bytes: number;
  memory_bytes: number;
  shadow?: { compared: number; agreed: number; differed: Record<string, number>; skipped: number };
}

export interface FunctionCalls {
  function: string;
  calls: number;
  failures: Record<string, number>;
  total_us: number;
  p50_us: number;
  p99_us: number;
}

export interface SlotEvent {
  at: string;
  what: string;
  generation: number | null;
  digest: string | null;
  reason: string | null;
}

/** `GET /cluster` */
export interface Cluster {
  node: number;
  nats: string;
  connections: { open: number; limit: number; unauthenticated: number };
  nodes: ClusterNode[];
  missing: number[];
  complete?: boolean;
  warnings: string[];
}

export interface ClusterNode {
  node: number;
  state: string;
  version?: string;
  uptime_seconds?: number;
  connections?: { open: number; limit: number; unauthenticated: number };
  plugins?: { slot: string; plugin: string; generation: number; stage: string; digest: string }[];
  admin?: string[];
}

/** `GET /connections` */
export interface ConnectionList {
  connections: Connection[];
  next: string | null;
  missing?: number[];
  /** False if connections of other gateways may be left out. */
  complete?: boolean;
}

export interface Connection {
  id: string;
  node?: number;
  uid: string;
  address: string;
  since: string;
  groups: number;
  outbox_bytes: number;
}

/** A line of `GET /events`: counters since the start of the gateway. */
export interface Sample {
  seq: number;
  at: string;
  connections: number;
  unauthenticated: number;
  outbox_bytes: number;
  logins: number;
  denials: Record<string, number>;
  messages: number;
  pushes: number;
  pushes_failed: number;
  closed: Record<string, number>;
}

/** A line of `GET /log`. */
export interface LogLine {
  seq: number;
  at: string;
  level: "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR";
  message: string;
  fields: Record<string, unknown>;
}

/** How many connections an action reached, by what happened there. */
export interface Reached {
  reached: number;
  "outbox-full"?: number;
  "over-budget"?: number;
  elsewhere?: string;
}

/** A line of `GET /trace`. */
export interface TraceLine {
  at?: string;
  connection?: string;
  uid?: string;
  what: "watching" | "handshake" | "packet" | "call" | "verdict" | "login" | "action" | "message" | "missed" | "closed" | "lost";
  /** How many are open now; missing if an address is traced. */
  connections?: number;
  address?: string;
  path?: string;
  slot?: string;
  plugin?: string;
  function?: string;
  generation?: number;
  digest?: string;
  micros?: number;
  failure?: { kind: string; reason: string };
  verdict?: string;
  action?: string;
  to?: Record<string, unknown>;
  result?: Reached | string;
  bytes?: number;
  payload?: string;
  code?: number;
  reason?: string;
  cause?: string;
  lines?: number;
}

/** What the gateway has told about one of its requests: `POST /try`. */
export interface TryLine {
  client?: string;
  text?: string;
  binary?: string;
  closed?: { code: number; reason: string };
}

/** What a request is about: this gateway, another one of the cluster, or all. */
export type Node = "" | "all" | string;

/** What every page of the dashboard gets. */
export interface Surroundings {
  status: Status | null;
  /** Why there is no newer status. */
  problem: Error | null;
  /** When the status came. */
  at: number;
  /** Asks for the status at once. */
  refresh: () => void;
  node: Node;
  /** The number of the gateway that serves the page; null without a cluster. */
  own: number | null;
  /** The part of the address after the page's name. */
  query: URLSearchParams;
  readOnly: boolean;
}
