// The types of what the page uses from preact.js.

export type Node = unknown;

export function html(strings: TemplateStringsArray, ...values: unknown[]): Node;
export function render(node: Node, parent: Element): void;

export interface Context<T> {
  Provider: unknown;
}
export function createContext<T>(initial: T): Context<T>;
export function useContext<T>(context: Context<T>): T;

type Update<T> = (next: T | ((before: T) => T)) => void;
export function useState<T>(initial: T | (() => T)): [T, Update<T>];
export function useRef<T>(initial: T): { current: T };
export function useMemo<T>(make: () => T, inputs: readonly unknown[]): T;
export function useEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useLayoutEffect(effect: () => void | (() => void), inputs?: readonly unknown[]): void;
export function useErrorBoundary(): [unknown, () => void];
