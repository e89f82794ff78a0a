-- The default join with slices = [[], ["country"], ["country", "device"]] and epochs = ["30m", "5m"],
-- from docs/semantics.md. A play counts in the epoch and the slices of every impression that it
-- matches. Table impressions also has country and device.
with sliced as (
  select request_id, video, ts, unnest([
    '',
    json_object('country', country)::varchar,
    json_object('country', country, 'device', device)::varchar
  ]) as slice
  from impressions
), facts as (
  select request_id, video, ts, slice, epoch_ms, ts // epoch_ms * epoch_ms as epoch_start_ms
  from sliced, (select unnest([1800000, 300000]) as epoch_ms)
), shown as (
  select video, epoch_start_ms, slice, epoch_ms, count(distinct request_id) as impressions
  from facts group by all
), played as (
  select f.video, f.epoch_start_ms, f.slice, f.epoch_ms, count(distinct f.request_id) as plays
  from facts f join plays p
    on f.request_id = p.request_id and f.video = p.video
   and p.ts - f.ts between -getvariable('early_ms') and getvariable('within_ms')
  group by all
)
select video, epoch_start_ms, impressions, coalesce(plays, 0) as plays, slice, epoch_ms
from shown left join played using (video, epoch_start_ms, slice, epoch_ms);
