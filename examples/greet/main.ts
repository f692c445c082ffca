import { salutation } from "./salutation.ts";

interface Greeting {
  name: string;
  hour?: number;
}

/** Called once for each execution, in a sandbox of its own. */
export async function handler(event: { data: Greeting; env: Record<string, string> }, context: { executionId: string }) {
  console.log(`greeting ${event.data.name}`);
  return {
    message: `${salutation(event.data.hour ?? 12)}, ${event.data.name}!`,
    execution: context.executionId,
  };
}
