// What the summaries of the last hour said, for the charts: gathered in the page, gone with it.

/** A summary each second, for an hour. */
const MOST = 3_600;

/** Columns over time; `time` is in Unix seconds. */
export class History {
  columns = { time: [], alive: [], late: [], dead: [], away: [], now: [], p99: [], requests: [] };

  add(summary) {
    const { clients, round_trip: trip } = summary;
    const time = summary.at / 1000;
    // A clock that was set back would make lines run backwards.
    if (time <= this.columns.time.at(-1)) return;
    const row = {
      time,
      alive: clients.alive,
      late: clients.late,
      dead: clients.dead,
      away: clients.away,
      now: trip.now_ms,
      p99: trip.p99_ms,
      requests: summary.requests_per_s,
    };
    for (const [name, column] of Object.entries(this.columns)) {
      column.push(row[name] ?? null);
      if (column.length > MOST) column.shift();
    }
  }
}
