import type { StatusSource } from '../ports.ts';
import type { Route } from './route.ts';

/** Whether we serve (open to everybody), and what is declared against what runs. */
export function statusRoutes(status: StatusSource, isDraining: () => boolean): Route[] {
  return [
    {
      method: 'GET',
      path: '/health',
      scope: undefined,
      handle({ ctx }) {
        const isHealthy = status.serving && !isDraining();
        ctx.status = isHealthy ? 200 : 503;
        if (!isHealthy) ctx.set('Retry-After', isDraining() ? '5' : '1');
        ctx.body = { status: isHealthy ? 'ok' : isDraining() ? 'draining' : 'starting', ...status.health() };
      },
    },
    {
      method: 'GET',
      path: '/status',
      scope: 'invoke',
      handle({ ctx }) {
        ctx.body = status.status();
      },
    },
    {
      method: 'POST',
      path: '/sync',
      scope: 'manage',
      async handle({ ctx }) {
        ctx.body = await status.sync();
      },
    },
  ];
}
