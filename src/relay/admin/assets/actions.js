// What an operator can do, and the questions before it.

import { path } from './api.js';
import { ask } from './dialogs.js';
import { count } from './format.js';

export function drain(client, done) {
  ask({
    heading: `Drain ${client.tunnel}?`,
    text: 'Its client is told to connect anew. Requests under way are finished. Only clients of level two can be told; others can be disconnected, and come back by themselves.',
    verb: 'Drain',
    path: path('clients', client.id, 'drain'),
    done,
  });
}

export function disconnect(client, done) {
  ask({
    heading: `Disconnect ${client.tunnel}?`,
    text: `The connection of the client at ${client.address} is closed at once. Most clients come back by themselves; to keep one out, revoke its key.`,
    verb: 'Disconnect',
    danger: true,
    path: path('clients', client.id, 'disconnect'),
    done,
  });
}

export function suspend(tunnel, done) {
  const on = tunnel.state !== 'suspended';
  ask({
    heading: `${on ? 'Suspend' : 'Resume'} ${tunnel.name}?`,
    text: on ? 'Viewers are turned away until it is resumed. Its client stays connected.' : 'Viewers are let in again.',
    verb: on ? 'Suspend' : 'Resume',
    danger: on,
    path: path('tunnels', tunnel.id, 'suspend'),
    body: () => ({ suspended: on }),
    done,
  });
}

export function extend(tunnel, done) {
  ask({
    heading: `Another end for ${tunnel.name}`,
    text: 'How long it may last from now on.',
    field: { label: 'Time', value: '2h', hint: 'As 30m, 2h or 7d; 0 for a tunnel without an end.' },
    verb: 'Extend',
    path: path('tunnels', tunnel.id, 'extend'),
    body: (ttl) => ({ ttl }),
    done,
  });
}

export function close(tunnel, done) {
  ask({
    heading: `Close ${tunnel.name}?`,
    text: `The tunnel of ${tunnel.owner} is deleted: ${count(tunnel.clients, 'client')} and ${count(tunnel.viewers, 'viewer')} are cut off. Its name stays reserved for its owner.`,
    verb: 'Close tunnel',
    danger: true,
    path: path('tunnels', tunnel.id, 'close'),
    done,
  });
}

export function revoke(key, done) {
  ask({
    heading: `Revoke the key ${key.name}?`,
    text: `It is good no more, from now on and for good: ${count(key.tunnels, 'tunnel')} of it are closed. This cannot be undone.`,
    verb: 'Revoke key',
    danger: true,
    path: path('keys', key.name, 'revoke'),
    done,
  });
}
