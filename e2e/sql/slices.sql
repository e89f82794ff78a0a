-- The default join with slices = [[], ["country"], ["country", "device"]] and epochs = ["30m", "5m"],
-- from docs/semantics.md. A play counts in the epoch and the slices of every impression that it
-- matches. Table impressions also has country and device.
with judged as (
  select i.*, exists (
    from plays p
    where p.request_id = i.request_id and p.video = i.video
      and p.ts - i.ts between -getvariable('early_ms') and getvariable('within_ms')
  ) as is_played
  from impressions i
), sliced as (
  select request_id, video, ts, is_played, unnest([
    '',
    json_object('country', country)::varchar,
    json_object('country', country, 'device', device)::varchar
  ]) as slice
  from judged
), facts as (
  select request_id, video, is_played, slice, epoch_ms, ts // epoch_ms * epoch_ms as epoch_start_ms
  from sliced, (select unnest([1800000, 300000]) as epoch_ms)
)
select video, epoch_start_ms, count(distinct request_id) as impressions,
       count(distinct request_id) filter (is_played) as plays, slice, epoch_ms
from facts group by all;
