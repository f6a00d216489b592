"""What clients may ask, put together."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

from gateway.api import images, jobs
from gateway.api.addresses import Addresses
from gateway.api.frontend import Watcher
from gateway.api.generation import Generation
from gateway.api.keeping import Resources, open_kept_answers
from gateway.api.models import Models
from gateway.api.openai import OpenAiImages
from gateway.api.openapi import document
from gateway.api.own_key import OwnKey
from gateway.api.quotes import Quotes
from gateway.api.rates import Rates
from gateway.api.router import Router
from gateway.api.site import OPENAI_IMAGES, TEXT_TO_IMAGE, public_router
from gateway.api.text_to_image import TextToImage
from gateway.app.parts import VERSION, Parts
from gateway.app.terms import bounds_of
from gateway.home import (
    webhook_secret,
)
from gateway.repeats.wish import note
from network.units import ModelId


async def open_public(parts: Parts, watchers: Sequence[Watcher], stack: AsyncExitStack) -> Router:
    settings = parts.settings
    bounds = bounds_of(settings)
    tier = parts.access.tier
    rates = Rates(parts.clock, None if tier is None else tier.crowd)
    repeats = parts.repeats
    dispatcher = parts.dispatcher if repeats is None else repeats.dispatcher
    addresses = Addresses(parts.store, settings.public_url)
    resources = Resources(
        database=parts.database,
        journal=parts.journal,
        images=parts.store,
        addresses=addresses,
        dispatcher=dispatcher,
        recovering=parts.dispatcher,
        interrupted=parts.interrupted,
        admission=parts.admission,
        running=parts.running,
        rates=rates,
        watchers=watchers,
        clock=parts.clock,
        randomness=parts.randomness,
        master=await webhook_secret(settings),
    )
    kept = await stack.enter_async_context(open_kept_answers(settings, resources))
    generation = Generation(
        keys=parts.access,
        rates=rates,
        admission=parts.admission,
        dispatcher=dispatcher,
        running=parts.running,
        max_body_bytes=settings.limits.max_body_bytes,
        body_timeout_seconds=settings.server.body_timeout_seconds,
        reveal_orchestrator=settings.server.reveal_orchestrator,
        keeping=kept.promising,
        note_cache_control=None if repeats is None else note,
    )
    text_to_image = TextToImage(generation, bounds, addresses, parts.finisher)
    openai_images = OpenAiImages(generation, bounds, addresses, parts.finisher, parts.clock)
    await kept.resume(
        parts.access.grant_of,
        {TEXT_TO_IMAGE: text_to_image.read, OPENAI_IMAGES: openai_images.read},
    )
    contract = document(
        bounds.of(bounds.default_model),
        VERSION,
        settings.public_url,
        keyless=parts.access.is_open,
    )
    return public_router(
        text_to_image=text_to_image,
        openai_images=openai_images,
        models=Models(
            parts.access,
            parts.directory.known_models,
            int(parts.clock.now()),
            look=parts.showcase.look,
            bounds=bounds,
            loras={ModelId(model.id): model.loras for model in settings.models},
        ),
        quotes=Quotes(
            keys=parts.access,
            rates=rates,
            admission=parts.admission,
            bounds=bounds,
            quoting=parts.dispatcher,
            repeats=None if repeats is None else repeats.dispatcher,
            max_body_bytes=settings.limits.max_body_bytes,
            body_timeout_seconds=settings.server.body_timeout_seconds,
        ),
        running_jobs=jobs.Jobs(
            keys=parts.access, running=parts.running, clock=parts.clock, endings=kept
        ),
        stored_images=images.Images(parts.store),
        contract=contract,
        version=VERSION,
        own_key=OwnKey(
            keys=parts.access,
            allowances=parts.allowances,
            rates=parts.eth_rates,
            clock=parts.clock,
        ),
        page=parts.page,
    )
