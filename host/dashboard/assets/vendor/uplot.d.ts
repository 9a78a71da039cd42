// The types of what the page uses from uplot.js, which is a plain script: it defines one global name.

declare class uPlot {
  constructor(options: object, data: (number | null)[][], parent: HTMLElement);
  setData(data: (number | null)[][]): void;
  setSize(size: { width: number; height: number }): void;
  destroy(): void;
  readonly cursor: { idx?: number | null };
}
