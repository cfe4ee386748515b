"""The public names: where each lives, and what it is.

This list is the only one: the package loads names from it, ``help(saepd)`` shows it, and type
checkers and editors read it.
"""

from typing import Final

__version__: Final[str]

# What people said
from .feedback.reading import load_feedback as load_feedback  # a file of feedback
from .feedback.reading import load_items as load_items  # a file of items
from .feedback.sample import sample_feedback as sample_feedback  # n rows of each perspective
from .feedback.reading import stream_feedback as stream_feedback  # feedback, row by row
from .feedback.schema import Feedback as Feedback  # what somebody of a perspective said about an item
from .feedback.schema import Item as Item  # one question, and what perspectives are known to answer
from .feedback.survey import survey_feedback as survey_feedback  # the packaged survey's answers
from .feedback.survey import survey_items as survey_items  # the packaged survey's questions

# Models and dictionaries
from .models.load import load_model as load_model  # a language model with hooks
from .models.wording import ReadoutConfig as ReadoutConfig  # how a model is asked, and options are read
from .saes.config import TrainConfig as TrainConfig  # how dictionaries are trained
from .saes.load import load_sae as load_sae  # a dictionary, checked against the model
from .saes.train import train_saes as train_saes  # dictionaries for a model, trained on text

# Which latents encode feedback
from .features.config import FeatureConfig as FeatureConfig  # how latents are chosen
from .features.encode import encode_pairs as encode_pairs  # feedback as latents of positive and anchor
from .features.evidence import Excited as Excited  # a feedback text that excites a latent
from .features.evidence import LatentEvidence as LatentEvidence  # all that is said about one latent
from .features.evidence import explain as explain  # evidence for the strongest latents
from .features.select import Features as Features  # the latents chosen for one perspective
from .features.select import Overlap as Overlap  # how far two perspectives share latents
from .features.select import overlap as overlap  # how many latents perspectives share
from .features.select import select_features as select_features  # the k strongest stable latents
from .features.table import FeatureTable as FeatureTable  # which latents encode whose feedback
from .features.table import feature_table as feature_table  # the table, with all that speaks for each

# What latents do in texts
from .features.index.build import build_index as build_index  # every latent over a collection of texts
from .features.index.config import IndexConfig as IndexConfig  # how texts are read into an index
from .features.index.feature_index import FeatureIndex as FeatureIndex  # an index: a page for every latent
from .features.index.latent_page import LatentPage as LatentPage  # all that an index knows of a latent
from .features.index.reading import load_index as load_index  # an index from a folder
from .features.index.text_page import TextPage as TextPage  # which latents fire where in a text
from .features.index.text_page import read_text as read_text  # a text, token by token and latent by latent
from .features.index.search import FoundLatent as FoundLatent  # a latent that was looked up
from .features.index.search import FoundLatents as FoundLatents  # all that were looked up
from .features.index.search import search as search  # latents by words, by texts, by texts for and against

# From feedback to directions
from .directions.direction import Direction as Direction  # one perspective's edit at a site, or at several
from .directions.edits import AddVector as AddVector  # an edit: add one vector
from .directions.edits import EditLatents as EditLatents  # an edit: add, scale, clamp, ablate latents
from .directions.edits import Reconstruct as Reconstruct  # an edit, as control: reconstruct
from .directions.fitted_readout import FittedReadout as FittedReadout  # how a fitted branch is read
from .directions.gate import Gate as Gate  # how much of a direction an item gets
from .directions.lineage import read_lineage as read_lineage  # what a folder's directions need
from .directions.saving import load_from_disk as load_from_disk  # directions from a folder
from .directions.saving import save_to_disk as save_to_disk  # directions into a folder
from .directions.vector_file import read_vector as read_vector  # a dense vector of another tool's
from .fit.budget import fit_kl_budget as fit_kl_budget  # the largest strength within a KL budget
from .fit.by_hand import steer as steer  # a direction of latents chosen by hand
from .fit.condition import Condition as Condition  # a gate that opens on prompts of one kind
from .fit.condition import learn_condition as learn_condition  # such a gate, from texts
from .fit.config import DirectionConfig as DirectionConfig  # how chosen latents become an edit
from .fit.config import FitConfig as FitConfig  # all that turns feedback into directions
from .fit.config import HandConfig as HandConfig  # how latents chosen by hand are written
from .fit.config import LearningConfig as LearningConfig  # what learning tries
from .fit.controls import dense_difference as dense_difference  # control: no dictionary
from .fit.controls import random_latents as random_latents  # control: other latents
from .fit.controls import shuffled_labels as shuffled_labels  # control: perspectives dealt out anew
from .fit.learn import LearnedFit as LearnedFit  # learned directions, and what came out
from .fit.learn import learn_directions as learn_directions  # directions learned as they run
from .fit.verdict import Verdict as Verdict  # what a fit gains, beside chance, and what it costs
from .fit.voice import Voice as Voice  # a mixture of known perspectives
from .fit.voice import learn_voice as learn_voice  # a new perspective from few answers
from .fit.recipe import Fit as Fit  # directions, their features, the encoded feedback
from .fit.recipe import fit_directions as fit_directions  # a direction for every perspective

# In other tools
from .interchange.exporting import Written as Written  # a perspective in another tool's format
from .interchange.exporting import export_directions as export_directions  # into another tool's format
from .interchange.importing import import_direction as import_direction  # from another tool's files

# Base and branches in one pass
from .branches.dose import relative_dose as relative_dose  # what is written, beside what is there
from .branches.dose_response import DosePoint as DosePoint  # what directions do at one strength
from .branches.dose_response import DoseResponse as DoseResponse  # effect and cost at every strength
from .branches.dose_response import dose_response as dose_response  # effect and cost by strength
from .branches.run import branch as branch  # next-token log-probs of base and branches
from .branches.captured import capture_prompts as capture_prompts  # prompts run once, branched often
from .branches.run import score_continuations as score_continuations  # log-likelihoods of texts
from .branches.writing.compare import Compared as Compared  # the base's text beside the steered one
from .branches.writing.compare import compare as compare  # where steering parts from the base, by token
from .branches.writing.config import OvertonConfig as OvertonConfig  # how distinct answers are found
from .branches.writing.config import SamplingConfig as SamplingConfig  # how tokens are drawn
from .branches.writing.generate import generate as generate  # a merged text, streamed
from .branches.writing.generate import generate_batch as generate_batch  # merged texts of many prompts
from .branches.writing.generate import generate_branches as generate_branches  # each branch's own text
from .branches.writing.overton import DistinctAnswer as DistinctAnswer  # one answer, and who gives it
from .branches.writing.overton import DistinctAnswers as DistinctAnswers  # all answers to a prompt
from .branches.writing.overton import distinct_answers as distinct_answers  # what the branches' texts come to
from .branches.writing.trace import Generated as Generated  # a text that was written
from .branches.writing.trace import Step as Step  # how one of its tokens came about

# One answer, and how sure it is
from .merge.config import MergeConfig as MergeConfig  # which merge, and its numbers
from .merge.disagreement import branch_disagreement as branch_disagreement  # spread of branches, nats
from .merge.operators import merge_branches as merge_branches  # one distribution from all branches
from .merge.weights import fit_merge_weights as fit_merge_weights  # a population's weights, from its answers
from .readout.amounts import gate_amounts as gate_amounts  # how much each gate writes for an item
from .readout.option_scores import OptionScores as OptionScores  # what branches say about options
from .readout.options import read_options as read_options  # scores of every item's options
from .uncertainty.reading import fit_reading as fit_reading  # a temperature from what people answered
from .uncertainty.assessment import Assessment as Assessment  # what is known about one item's answers
from .uncertainty.assessment import assess as assess  # every score of uncertainty of every item
from .uncertainty.config import AssessmentConfig as AssessmentConfig  # how items are assessed
from .uncertainty.config import EpistemicConfig as EpistemicConfig  # how free text is asked again
from .uncertainty.triage import Triaged as Triaged  # one item in its place
from .uncertainty.triage import triage_items as triage_items  # the items that need a person most

# How good it is
from .evaluation.config import DrawConfig as DrawConfig  # what is held out, and how much is drawn
from .evaluation.config import EvaluationConfig as EvaluationConfig  # what is compared
from .evaluation.results.result import EvaluationResult as EvaluationResult  # what an evaluation found
from .evaluation.run import evaluate as evaluate  # every method beside its nulls, on a task
from .sweeps.config import RunConfig as RunConfig  # how a sweep runs
from .sweeps.results.frame import read_sweep as read_sweep  # a sweep's results as a frame
from .sweeps.results.shown import SweepResults as SweepResults  # a sweep's points, and what they say
from .sweeps.results.shown import sweep_results as sweep_results  # what a sweep says about its parameters
from .sweeps.run import run_sweep as run_sweep  # what of a sweep is not finished yet
from .sweeps.space.sweep_file import load_sweep as load_sweep  # a sweep file
from .tasks.loading import load_task as load_task  # published disagreement, or your own
from .tasks.task import Task as Task  # questions with several perspectives' answers

# Pictures (plotly figures) and pages
from .pages.curves import reliability_figure as reliability_figure  # confidence against accuracy
from .pages.curves import risk_coverage_figure as risk_coverage_figure  # what the sure ones risk
from .pages.figures import activations_figure as activations_figure  # a latent, for and against
from .pages.figures import dose_figure as dose_figure  # effect and cost against strength
from .pages.figures import effects_figure as effects_figure  # heat map: latent by perspective
from .pages.figures import intervals_figure as intervals_figure  # effects with their intervals
from .pages.figures import latent_figure as latent_figure  # how strongly and where a latent fires
from .pages.figures import options_figure as options_figure  # options in every branch, and people's
from .pages.figures import overlap_figure as overlap_figure  # latents that perspectives share
from .pages.token_figures import strip_figure as strip_figure  # tokens of two texts, by KL
from .pages.token_figures import text_figure as text_figure  # the latents of a text, by token
from .pages.token_figures import trace_figure as trace_figure  # which branch moved which token
from .pages.sliders import sliders as sliders  # strengths and merge by hand, in a notebook
from .pages.report import write_report as write_report  # what a folder holds, as one page

# While it takes its time
from .common.progress import progress_bar as progress_bar  # a bar, in a terminal and in a notebook

# When the input is wrong
from .common.errors import InputError as InputError  # bad input, told in one sentence
