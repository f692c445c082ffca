// TypeScript of many kinds. The compiler loads it before it says that it is ready, so that the code which parses and emits is in memory
// when the modules come. Nothing of it runs.

import type { Server } from "node:http";
import { receive } from "./frames.js";

export enum Colour {
  Red = 1,
  Green,
}

export interface Shape {
  readonly name: string;
  [key: string]: unknown;
}

type Keys<T> = { [K in keyof T]?: T[K] extends string ? K : never };

export class Box<T extends object = object> implements Iterable<T> {
  static of = <U extends object>(item: U): Box<U> => new Box(item);
  #count = 0;
  private readonly items: T[] = [];

  constructor(public item: T, protected server?: Server) {
    this.items.push(item, ...this.items);
  }

  get count(): number {
    return this.#count ?? (this.item as { count?: number }).count!;
  }

  *[Symbol.iterator](): IterableIterator<T> {
    for (const item of this.items) yield item;
  }
}

export async function handler({ data, env = {} }: { data: number[]; env?: Keys<Shape> }, ...rest: string[]): Promise<string> {
  try {
    for (let i = 0; i < data.length; i += 2) {
      if (data[i] > Colour.Green && !rest.includes("x")) continue;
      else await Promise.all(data.map(async (one) => one * 2));
    }
    switch (rest.length) {
      case 0:
        return `${JSON.stringify({ ...env, receive })} ${/[a-z]+/g.test(rest[0]) ? "yes" : 'no'}`;
      default:
        throw new TypeError("none");
    }
  } catch (error: unknown) {
    return (error as Error)?.message satisfies string;
  }
}
