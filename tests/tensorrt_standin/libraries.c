/* Empty stand-ins for libnvinfer, libnvinfer_plugin and libnvonnxparser: the entry points that NVIDIA's Python bindings look up when they are
   imported. Nothing can be built or run with them; the bindings' classes and signatures can be read. */
void *createInferBuilder_INTERNAL(void *logger, int version) { return 0; }
void *createInferRuntime_INTERNAL(void *logger, int version) { return 0; }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) { return 0; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return 0; }
void *getBuilderPluginRegistry(int capability) { return 0; }
void *getPluginRegistry(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *space) { return 1; }
int getNvOnnxParserVersion(void) { return 0; }
