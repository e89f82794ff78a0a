-- The setting of the slides, from docs/semantics.md: match = request, impressions = joined,
-- epoch_of_play = play, no slices. Tables and variables as in docs/semantics.sql.
with matches as (
  select i.request_id, i.video as shown, i.ts as shown_ms, p.video as played, p.ts as played_ms
  from impressions i join plays p
    on i.request_id = p.request_id
   and p.ts - i.ts between -getvariable('early_ms') and getvariable('within_ms')
), impressions_of as (
  select shown as video, shown_ms // getvariable('epoch_ms') as epoch,
         count(distinct request_id) as impressions
  from matches group by all
), plays_of as (
  select played as video, played_ms // getvariable('epoch_ms') as epoch,
         count(distinct request_id) as plays
  from matches group by all
)
select video, epoch * getvariable('epoch_ms') as epoch_start_ms,
       coalesce(impressions, 0) as impressions, coalesce(plays, 0) as plays
from impressions_of full join plays_of using (video, epoch);
