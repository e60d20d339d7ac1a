# An image that contains its model: rolling out the image rolls out the model. BUNDLE is a bundle's folder inside the build context:
#   docker build -f deploy/docker/model.Dockerfile --build-arg BUNDLE=open_nsfw.plimsoll -t plimsoll-open-nsfw:1 FOLDER

ARG PLIMSOLL=plimsoll:0.1.0
# hadolint ignore=DL3006
FROM ${PLIMSOLL}
ARG BUNDLE
COPY --chown=10001:10001 ${BUNDLE} /models/model.plimsoll
CMD ["/models/model.plimsoll"]
