"""What the words of a report mean: a page of its own."""

from __future__ import annotations

from gan_ablate.analysis.estimates import CONFIDENCE, MIN_BOOTSTRAP_SEEDS
from gan_ablate.analysis.sequential import PRIOR_SEEDS
from gan_ablate.scoring.scores import COLLAPSED_RECALL, COLLAPSED_SHARE

METHODS = f"""\
- **The unit is the seed.** The variants of a seed share the order of the images, the latents from which D's fakes are
  drawn and the random stream of every parameter tensor: where name, shape and initialisation agree, so do the initial
  weights. So an effect is a difference within a seed, averaged over seeds.
- **Effects** on outcomes of the ratio scale are means of log ratios, told in percent. In a factorial grid an effect is
  averaged over the levels of the other factors, and an interaction is how much one factor's effect differs between the
  levels of another; in a one-at-a-time grid each level is compared with the baseline.
- **Intervals** cover {CONFIDENCE:.0%}. Where the number of seeds was settled beforehand: Student's t on the paired
  differences and, from {MIN_BOOTSTRAP_SEEDS} seeds on, a bootstrap over seeds with expanded percentiles; with fewer
  seeds no resampling covers as often as it says. Where seeds were added after a look at the answers (`--until settled`,
  or the same grid with more `--seeds`): the sequential t test with a normal mixture (arXiv:2210.08589, section 3;
  g = {PRIOR_SEEDS}), whose intervals and p hold at every look and are therefore wider; a grid's setup table says which.
  That interval is what no look has excluded: where later seeds differ from earlier ones, an estimate may lie beyond.
- **Tests.** A grid's effects on one outcome are one family. Holm's procedure keeps the chance of any false finding
  among them at 5 %; every outcome of every grid is a family of its own, and nothing adjusts across them. Intervals
  are not adjusted unless they say so, nor is Fisher's p. The adjusted interval has the level at which Holm's procedure
  tests that effect, and excludes zero exactly where it finds one; of what it does not find, it has the level of
  Holm's first test, so that what lies within the margin holds for all of them. Several adjusted intervals do not hold
  jointly at 95 %. Fisher's p, the intervals of variants' means and the sign-flip test are those of a number of seeds
  that was settled beforehand. The
  sign-flip test is exact for differences that are symmetric around zero, normal or not, but n seeds give no p below
  2/2ⁿ: with five it cannot reach 0.05, and verdicts rest on the t test, for which differences should be roughly normal.
- **The margin** of a grid is the smallest change worth having, 10 % unless its file says otherwise: from 1/1.1 to 1.1
  times the outcome. Only outcomes that are compared by ratios have one.
- **Verdicts.** *Supported*: the adjusted interval of a deciding effect excludes zero on the side that the claim says,
  and none on the other. *Refuted*: that of a deciding effect excludes zero on the other side, and all others do too or
  are negligible. *Negligible*: all deciding intervals lie within the margin: it does not matter. *Open*: all else. An
  effect whose interval excludes zero and lies within the margin is real, and too small to matter. A claim that
  something makes no difference is supported by a negligible effect, and refuted by one beyond the margin. The chance
  that any effect of a family is falsely called negligible is held to 5 %, as that of a false effect is. The seeds
  that would settle an open effect are those at which its interval, valid at every look, would exclude zero or lie
  within the margin, were mean and spread those seen here; a few seeds know neither well.
- **Simple effects** are those of one factor at one level of each other factor: what stands behind a factorial grid's
  averages. They are a family of tests of their own, each with its own spread.
- **Along training**, every effect is estimated anew at each point at which FID was taken, on fewer samples; all effects
  at one point are a family of tests, and nothing adjusts across points. An answer *holds from* the first point after
  which no other one was given. A variant has not levelled off where its FID falls by more than the margin over the last
  third of training. Runs that diverged take no part in either; a turn is told where two neighbouring points agree.
- **What pairing is worth** is the variance that a difference would have if either side had seeds of its own, over the
  variance that it has: 2 means that shared seeds halve the seeds needed, 1 that they buy nothing. The interval is
  Morgan's for correlated normal variances (Biometrika 31, 1939), exact for normal scores, and wide with few seeds.
- **Divergence** (a loss, a gradient, a weight or a pixel that is not a finite number) is counted, not dropped, and so
  is **collapse**: a finished run whose images are as diverse as fewer than {COLLAPSED_SHARE:.0%} of the classes, drawn
  evenly (exp of the entropy of the classes' shares: Hill, Ecology 54, 1973), or whose recall is below
  {COLLAPSED_RECALL} (arXiv:1904.06991): nineteen of twenty real images have none of its kind. Half of the classes is
  where a generator draws no longer most of them; recall sees what classes cannot, one image of each class again and
  again, and in the 98 runs of this project's first grids it was below 0.04 where one shape, or a few, filled the sample
  sheet, above 0.1 where sheets were varied, and between them nowhere; on other features than digits' it was not tried.
  Both rates have exact (Clopper-Pearson)
  intervals and are compared by Fisher's exact test. Where runs diverged, effects are given twice: over the seeds that
  every compared variant survived, and with each diverged run scored like the worst that finished, which is the least
  that a divergence can count.
- **The floor** is what as many real training images score, sent through the same resizing: no generator can be expected
  below it. FID on a digit classifier's features has a scale of its own: it does not compare with FID on Inception's.
- **In the tables**, *spread over seeds* is the standard deviation of log FID, as a percentage; *FID, batch statistics*
  is that of images drawn with each batch's own mean and variance; *classes, fewest* is the smallest number of classes
  that a run covers; *it/s* is one over the median step, *p10* and *p90* are percentiles of its time; *process peak* is
  the largest memory of the process while it trained; brackets are 95 % intervals over seeds. The *Pareto front* joins
  the variants than which no other is both cheaper and better, by their means.
- **Runs that grids share** are computed once. Effects that rest on the same runs are one finding, not two.
- **Precision.** Runs compute in float32 unless a level says otherwise. Where bfloat16 is native it is faster; it would
  be the default if its effect on FID were known to be negligible. The grid *precision* asks for that, and as long as
  its interval leaves room for an effect that matters, it is not known.
"""
